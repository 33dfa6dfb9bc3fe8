"""Reports of health in a Valkey or Redis server.

One atomic script a turn: it notes that this process lives, drops those that do not, takes what is
new from us and returns what is new from the others. The server's clock counts, so that a process
whose own is wrong is understood. Four keys below the prefix, which vanish some time after the last
process: ``reports`` (process and target -> time and report), ``changes`` (the same by turn),
``alive`` (process by time) and ``turn``. They share a hash tag, so that a cluster keeps them together.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Final

from aiproxy.middleware.state.evidence import Report, decode, encode

#: Bounds of one turn: it runs beside the requests, and a store that hangs is a store that is lost.
_PATIENCE_S: Final = 1.0
#: A process that has not been heard of for so many intervals, and at least so long, is gone.
_SILENT_TURNS: Final = 8
_SILENT_S: Final = 3.0
#: Nothing is kept for longer than this after the last process.
_KEEP_S: Final = 600.0

SCRIPT: Final = """
local reports, changes, alive, turn = KEYS[1], KEYS[2], KEYS[3], KEYS[4]
local me, silent, keep, after = ARGV[1], tonumber(ARGV[2]), ARGV[3], tonumber(ARGV[4])
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local known = redis.call('ZSCORE', alive, me)
redis.call('ZADD', alive, now, me)
local dead = redis.call('ZRANGEBYSCORE', alive, '-inf', '(' .. (now - silent))
if #dead > 0 then
  local gone = {}
  for _, id in ipairs(dead) do
    gone[id] = true
    redis.call('ZREM', alive, id)
  end
  for _, field in ipairs(redis.call('HKEYS', reports)) do
    if gone[string.match(field, '^[^ ]+')] then
      redis.call('HDEL', reports, field)
      redis.call('ZREM', changes, field)
    end
  end
end
for i = 5, #ARGV, 2 do
  local field = me .. ' ' .. ARGV[i]
  redis.call('HSET', reports, field, string.format('%.0f', now) .. ' ' .. ARGV[i + 1])
  redis.call('ZADD', changes, redis.call('INCR', turn), field)
end
local top = tonumber(redis.call('GET', turn) or '0')
if after > top then after = 0 end
local found = {}
local own = me .. ' '
for _, field in ipairs(redis.call('ZRANGEBYSCORE', changes, '(' .. after, '+inf')) do
  if string.sub(field, 1, #own) ~= own then
    local report = redis.call('HGET', reports, field)
    if report then
      found[#found + 1] = field
      found[#found + 1] = report
    end
  end
end
for i = 1, 4 do redis.call('PEXPIRE', KEYS[i], keep) end
return {now, top, known and 1 or 0, redis.call('ZRANGE', alive, 0, -1), found}
"""


class StoreLost(Exception):
    """The store did not answer. Its text names neither the address nor what was sent."""


@dataclass(frozen=True, slots=True)
class News:
    """What a turn brought. ``now_ms`` is the store's time, ``known`` whether it remembered this
    process; ``reports`` are by process and target, with the time they were told."""

    now_ms: int
    turn: int
    known: bool
    alive: frozenset[str]
    reports: Mapping[tuple[str, str], tuple[int, Report]]


class Valkey:
    """One connection, made when it is first used; for one thread."""

    name: ClassVar[str] = "valkey"

    def __init__(self, url: str, prefix: str, interval_s: float) -> None:
        self._url = url.replace("valkey", "redis", 1) if url.startswith("valkey") else url
        tag = prefix + "{health}:"
        self._keys = [tag + name for name in ("reports", "changes", "alive", "turn")]
        self._silent_ms = int(max(_SILENT_S, _SILENT_TURNS * interval_s) * 1000)
        self._client: Any = None
        self._script: Any = None

    def exchange(self, process: str, after: int, told: Mapping[str, Report]) -> News:
        """Tell what changed and hear what others told since turn ``after`` (0: everything).

        Raises:
            StoreLost: within its patience the store did neither.
        """
        import redis

        arguments: list[Any] = [process, self._silent_ms, int(_KEEP_S * 1000), after]
        for target, report in told.items():
            arguments += (target, encode(report))
        try:
            if self._client is None:
                self._connect()
            answer = self._script(keys=self._keys, args=arguments)
        except (redis.RedisError, OSError, ValueError) as error:
            self.close()
            raise StoreLost(type(error).__name__) from None
        return _news(answer)

    def _connect(self) -> None:
        import redis
        from redis.backoff import NoBackoff
        from redis.retry import Retry

        self._client = redis.Redis.from_url(
            self._url,
            socket_timeout=_PATIENCE_S,
            socket_connect_timeout=_PATIENCE_S,
            retry=Retry(NoBackoff(), 0),
            decode_responses=False,
        )
        self._script = self._client.register_script(SCRIPT)

    def close(self) -> None:
        """Close the connection; the next exchange makes another."""
        client, self._client = self._client, None
        if client is not None:
            client.close()

    def forget(self) -> None:
        """After a fork: the connection is the parent's."""
        self._client = None


def _news(answer: Any) -> News:
    now_ms, turn, known, alive, rows = answer
    reports: dict[tuple[str, str], tuple[int, Report]] = {}
    for field, value in zip(rows[::2], rows[1::2], strict=True):
        process, _, target = field.decode("utf-8", "replace").partition(" ")
        at, _, raw = value.partition(b" ")
        report = decode(raw)
        if report is not None and at.isdigit():
            reports[process, target] = (int(at), report)
    living = frozenset(name.decode("utf-8", "replace") for name in alive)
    return News(int(now_ms), int(turn), bool(known), living, reports)
