#!lua name=tictac_4
-- The write side of a shard's log. Whoever changes what a function does raises the version in the library's and the
-- functions' names, so that programs of both versions can write side by side. (Since 4 the channels are sharded: followers of 3
-- don't hear them.)
--
-- KEYS, for all: 1 owner's lease, 2 epoch, 3 number of the last entry, 4 log, 5 ids of the markets with a snapshot,
-- 6 how far each source's stream is in the log (hash of source and stream id);
-- for append then one key for each snapshot, then one for each market that is gone.
-- All keys of a shard share a hash tag, and so a slot.
--
-- Every answer is {done, epoch, number, owner}: done is '1', or '0' where nothing was written; the rest is what is
-- stored, '' where there is nothing. A refused acquire adds for how long (ms) the owner's lease still runs.
--
-- A function does not roll back: every check comes before the first write, and XADD, the one write that Redis itself
-- can still refuse (an id at or below the top), is the first.
--
-- Numbers are doubles here, exact below 2^53, which is the bound of all of ours. They are written with %.0f, because
-- tostring turns to 1e+15 notation long before.

local LIMIT = 9007199254740992

local function text(number)
  return string.format('%.0f', number)
end

local function answer(done, keys)
  local stored = redis.call('MGET', keys[2], keys[3], keys[1])
  return { done, stored[1] or '', stored[2] or '', stored[3] or '' }
end

-- Whether epoch and owner are the stored ones. A lease that ran out is nobody's.
local function is_owner(keys, epoch, owner)
  return redis.call('GET', keys[2]) == epoch and redis.call('GET', keys[1]) == owner
end

-- The stream's last id as two numbers; zeros where it is empty.
local function top(log)
  local last = redis.call('XREVRANGE', log, '+', '-', 'COUNT', 1)[1]
  if not last then
    return 0, 0
  end
  local epoch, number = string.match(last[1], '^(%d+)-(%d+)$')
  return tonumber(epoch), tonumber(number)
end

-- ARGV: owner, clock (Unix ms), slot, lease (ms), highest epoch ever seen.
-- The next epoch is above the stored one, the log's, the seen one and the clock's own lane: a Redis that lost its
-- memory does not bring an old one back. The number goes on from what is remembered, be it only by the log.
local function acquire(keys, args)
  local owner, now, slot, lease, seen = args[1], tonumber(args[2]), tonumber(args[3]), args[4], tonumber(args[5])
  local holder = redis.call('GET', keys[1])
  local epoch = tonumber(redis.call('GET', keys[2]) or '0')
  -- A lease that is remembered by a Redis which forgot a later epoch keeps nobody out: gateways would never follow it.
  local forgot = epoch and seen and seen > epoch
  if holder and holder ~= owner and not forgot then
    local refused = answer('0', keys)
    refused[5] = text(redis.call('PTTL', keys[1]))
    return refused
  end
  local number = tonumber(redis.call('GET', keys[3]) or '0')
  if not (epoch and number and now and slot and seen) then
    return redis.error_reply('TICTAC epoch, number, clock, slot or seen epoch is no number: look at ' .. keys[2] .. ' and ' .. keys[3])
  end
  local log_epoch, log_number = top(keys[4])
  epoch = math.max(epoch, log_epoch, seen, now * 1024)
  number = math.max(number, log_number)
  epoch = (math.floor(epoch / 1024) + 1) * 1024 + slot
  if epoch >= LIMIT then
    return redis.error_reply('TICTAC epoch ' .. text(epoch) .. ' reaches 2^53: set the clocks right and delete ' .. keys[2])
  end
  redis.call('SET', keys[2], text(epoch))
  redis.call('SET', keys[3], text(number))
  redis.call('SET', keys[1], owner, 'PX', lease)
  return { '1', text(epoch), text(number), owner }
end

-- ARGV: epoch, owner, lease (ms).
local function renew(keys, args)
  if not is_owner(keys, args[1], args[2]) then
    return answer('0', keys)
  end
  redis.call('PEXPIRE', keys[1], args[3])
  return { '1', args[1], redis.call('GET', keys[3]) or '', args[2] }
end

-- Notes how far sources' streams are in the log: args[at] says how many, then source and stream id of each.
local function note(keys, args, at)
  for i = 1, tonumber(args[at]) do
    redis.call('HSET', keys[6], args[at + 2 * i - 1], args[at + 2 * i])
  end
end

-- ARGV: owner, channel, shard. Those that stand by hear on the channel that the shard is free.
local function release(keys, args)
  if redis.call('GET', keys[1]) ~= args[1] then
    return answer('0', keys)
  end
  redis.call('DEL', keys[1])
  redis.call('PUBLISH', args[2], args[3])
  return answer('1', keys)
end

-- ARGV: epoch, owner, number of the first entry, channel, lowest id to keep ('' to keep all), most entries to keep,
-- how many entries, snapshots, gone, lease (ms); then the entries; then market and bytes of each snapshot; then each gone
-- market; then what note takes. Who writes lives: the lease begins anew.
local function append(keys, args)
  local epoch, owner, first, channel, keep, most = args[1], args[2], args[3], args[4], args[5], args[6]
  local entries, snapshots, gone = tonumber(args[7]), tonumber(args[8]), tonumber(args[9])
  if not is_owner(keys, epoch, owner) then
    return answer('0', keys)
  end
  local stored = tonumber(redis.call('GET', keys[3]) or '')
  local number = tonumber(first)
  if not stored or stored + 1 ~= number or number + entries >= LIMIT then
    return answer('0', keys)
  end

  local at = 10
  for i = 1, entries do
    redis.call('XADD', keys[4], epoch .. '-' .. text(stored + i), 'e', args[at + i])
  end
  redis.call('PEXPIRE', keys[1], args[10])
  at = at + entries
  for i = 1, snapshots do
    redis.call('SET', keys[6 + i], args[at + 2 * i])
    redis.call('SADD', keys[5], args[at + 2 * i - 1])
  end
  at = at + 2 * snapshots
  for i = 1, gone do
    redis.call('DEL', keys[6 + snapshots + i])
    redis.call('SREM', keys[5], args[at + i])
  end
  note(keys, args, at + gone + 1)
  local last = text(stored + entries)
  redis.call('SET', keys[3], last)
  -- Never by time: ids are no times. '~' drops whole nodes of the stream only: cheap, and it keeps rather more.
  if keep ~= '' then
    redis.call('XTRIM', keys[4], 'MINID', '~', keep)
  end
  redis.call('XTRIM', keys[4], 'MAXLEN', '~', most)
  for i = 1, entries do
    redis.call('SPUBLISH', channel, args[10 + i])
  end
  return { '1', epoch, last, owner }
end

-- ARGV: epoch, owner, number of the last entry, channel, message, lease (ms); then what note takes.
local function alive(keys, args)
  if not is_owner(keys, args[1], args[2]) or redis.call('GET', keys[3]) ~= args[3] then
    return answer('0', keys)
  end
  redis.call('PEXPIRE', keys[1], args[6])
  note(keys, args, 7)
  redis.call('SPUBLISH', args[4], args[5])
  return { '1', args[1], args[3], args[2] }
end

-- KEYS: 1 the operator's ledger (hash of scope and act), 2 the audit (stream). ARGV: scope, act (JSON with its time), channel,
-- whether the ledger keeps it, whether it is new (else it is stored again after a loss), most scopes, most entries of
-- the audit. Of each scope the latest act counts. The answer is 1, or 0 where there is a later one.
local function operate(keys, args)
  local stored = redis.call('HGET', keys[1], args[1])
  if stored and cjson.decode(stored).at > cjson.decode(args[2]).at then
    return 0
  end
  if args[4] == '1' then
    if not stored and redis.call('HLEN', keys[1]) >= tonumber(args[6]) then
      return redis.error_reply('TICTAC ' .. args[6] .. ' scopes are remembered; act on source:NAME or all')
    end
    redis.call('HSET', keys[1], args[1], args[2])
  end
  if args[5] == '1' then
    redis.call('XADD', keys[2], 'MAXLEN', '~', args[7], '*', 'act', args[2])
  end
  redis.call('PUBLISH', args[3], args[2])
  return 1
end

redis.register_function('tictac_operate_4', operate)
redis.register_function('tictac_acquire_4', acquire)
redis.register_function('tictac_renew_4', renew)
redis.register_function('tictac_release_4', release)
redis.register_function('tictac_append_4', append)
redis.register_function('tictac_alive_4', alive)
