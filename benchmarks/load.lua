-- Requests for wrk: methods, paths and bodies that take turns, in which @name@ and @number@ are replaced. Names come from
-- a file, one for each turn, from a given line on; numbers count up from a given one. One thread of wrk only.

local names, at, number
local requests, turn = {}, 0
for place = 1, tonumber(os.getenv("LOAD_REQUESTS")) do
  local function given(what) return os.getenv("LOAD_" .. what .. "_" .. place) end
  requests[place] = { method = given("METHOD"), path = given("PATH"), body = given("BODY") }
end

function init(arguments)
  names, at, number = {}, tonumber(os.getenv("LOAD_AT")), tonumber(os.getenv("LOAD_NUMBER"))
  for line in io.lines(os.getenv("LOAD_NAMES")) do names[#names + 1] = line end
end

function request()
  if turn == 0 then at, number = at + 1, number + 1 end
  local asked = requests[turn + 1]
  turn = (turn + 1) % #requests
  local values = { name = names[at % #names + 1], number = string.format("%d", number) }
  local body = asked.body and (asked.body:gsub("@(%a+)@", values))
  return wrk.format(asked.method, (asked.path:gsub("@(%a+)@", values)), nil, body)
end

function done(summary, latency)
  local errors = summary.errors
  io.write(string.format(
    '\n{"count": %d, "seconds": %f, "p50_ms": %f, "p95_ms": %f, "p99_ms": %f, "refused": %d, "broken": %d}\n',
    summary.requests, summary.duration / 1e6,
    latency:percentile(50) / 1e3, latency:percentile(95) / 1e3, latency:percentile(99) / 1e3,
    errors.status, errors.connect + errors.read + errors.write + errors.timeout))
end
