"""Conversations in Valkey or Redis: one hash a row, changed by one script."""

from collections.abc import Sequence
from typing import Any, Final

from aiproxy.middleware.conversations.stores import Change, Key, Row, StoreDown

_CONNECT_S: Final = 1.0
_ANSWER_S: Final = 3.0

#: All changes or none. KEYS: the index (rows by the time of their last change), then a row and the
#: set of its name (the index: none) for each change. ARGV: ttl in ms, most rows, then for each change its version,
#: what to do (``w`` head and turns, ``h`` head only, ``d`` delete), head, turns, and id.
_PUT: Final = """
local ttl, most = tonumber(ARGV[1]), tonumber(ARGV[2])
local count = (#KEYS - 1) / 2
for n = 1, count do
  local held = redis.call('HGET', KEYS[2 * n], 'v') or '0'
  if held ~= ARGV[5 * n - 2] then return 0 end
end
local time = redis.call('TIME')
local now = tonumber(time[1]) * 1000 + math.floor(tonumber(time[2]) / 1000)
for n = 1, count do
  local row, name = KEYS[2 * n], KEYS[2 * n + 1]
  local version, act = tonumber(ARGV[5 * n - 2]), ARGV[5 * n - 1]
  if act == 'd' then
    redis.call('DEL', row)
    redis.call('ZREM', KEYS[1], row)
  else
    redis.call('HSET', row, 'v', version + 1, 'h', ARGV[5 * n])
    if act == 'w' or version == 0 then redis.call('HSET', row, 't', ARGV[5 * n + 1]) end
    redis.call('PEXPIRE', row, ttl)
    redis.call('ZADD', KEYS[1], now, row)
    if name ~= KEYS[1] then
      redis.call('SADD', name, ARGV[5 * n + 2])
      redis.call('HSET', row, 'n', name)
    end
    local known = redis.call('HGET', row, 'n')
    if known then redis.call('PEXPIRE', known, ttl * 2) end
  end
end
redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', now - ttl)
redis.call('PEXPIRE', KEYS[1], ttl * 2)
local over = redis.call('ZCARD', KEYS[1]) - most
if over > 0 then
  for n, row in ipairs(redis.call('ZPOPMIN', KEYS[1], over)) do
    if n % 2 == 1 then redis.call('DEL', row) end
  end
end
return 1
"""


class ValkeyStore:
    """Rows in the store at ``url``. All keys of one prefix are in one slot of a cluster."""

    kind = "valkey"
    blocking = True

    def __init__(self, url: str, *, prefix: str, ttl_s: float, most: int) -> None:
        """Nothing is connected yet.

        Raises:
            ModuleNotFoundError: the package ``redis`` is not installed.
        """
        import redis

        self._faults: tuple[type[Exception], ...] = (redis.RedisError, OSError)
        self._client: Any = redis.Redis.from_url(
            url.replace("valkeys://", "rediss://", 1).replace("valkey://", "redis://", 1),
            socket_connect_timeout=_CONNECT_S,
            socket_timeout=_ANSWER_S,
        )
        self._base = f"{prefix}{{conversations}}:"
        self._ttl_ms, self._most = max(1, round(ttl_s * 1000)), most
        self._put = self._client.register_script(_PUT)

    def get(self, keys: Sequence[Key]) -> list[Row | None]:
        try:
            pipe = self._client.pipeline(transaction=len(keys) > 1)
            for key in keys:
                pipe.hmget(self._row(key), "v", "h", "t")
            found = pipe.execute()
        except self._faults as fault:
            raise StoreDown(type(fault).__name__) from None
        return [None if v is None else Row(int(v), h, t) for v, h, t in found]

    def put(self, changes: Sequence[Change]) -> bool:
        keys = [f"{self._base}index"]
        args: list[Any] = [self._ttl_ms, self._most]
        for change in changes:
            owner, name = change.key[0], change.name
            keys += [self._row(change.key), keys[0] if name is None else self._name(owner, name)]
            act = "d" if change.head is None else "h" if change.turns is None else "w"
            args += [change.version, act, change.head or b"", change.turns or b"", change.key[1]]
        try:
            return bool(self._put(keys=keys, args=args))
        except self._faults as fault:
            raise StoreDown(type(fault).__name__) from None

    def named(self, owner: str, name: str) -> list[str]:
        try:
            return sorted(
                member.decode() for member in self._client.smembers(self._name(owner, name))
            )
        except self._faults as fault:
            raise StoreDown(type(fault).__name__) from None

    def close(self) -> None:
        self._client.close()

    def _row(self, key: Key) -> str:
        return f"{self._base}row:{key[0]}:{key[1]}"

    def _name(self, owner: str, name: str) -> str:
        return f"{self._base}name:{owner}:{name}"
