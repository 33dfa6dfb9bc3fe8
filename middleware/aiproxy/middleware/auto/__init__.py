"""The ``auto`` parameters of the draft (section 5, Table 1), resolved for one model at a time.

``limits``, ``offer``, ``rungs`` and ``shapes`` decide what a parameter becomes; ``resolving`` puts the
decisions of one attempt together; ``canonical_form`` and ``patches`` write them into a request that
is translated, or into one that stays in its dialect; ``telling`` undoes names on the way back and
``answer_check`` holds an adapted answer to its schema.
"""
