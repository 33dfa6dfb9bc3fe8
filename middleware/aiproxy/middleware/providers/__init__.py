"""How a provider is reached: over HTTP (``aio``, ``sync``) or as the wrapped application.

A transport performs one ``Call`` and reads one stream. It decides nothing, retries nothing and
does not know what a header means; the exchange does.
"""
