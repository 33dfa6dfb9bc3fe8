"""Fake AI providers on real sockets, and the configurations that put them behind a target.

* ``upstreams.Upstreams``: the fakes; ``remote.RemoteUpstreams``: the same behind a control port.
* ``fleet``: what a scenario needs, as data; ``acts.Act``: one attempt's fate; ``log.Attempt``:
  what a fake saw.
* ``shapes``: what the fakes speak, a module a dialect.
* ``fixtures``: the pytest fixture ``aiproxy_upstreams`` for tests of a gateway of one's own.
* ``rendering``: configurations of targets.
"""
