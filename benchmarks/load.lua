-- Requests for wrk: one method, path and body, in which @name@ and @number@ are replaced. Names come from a file,
-- one for each request, from a given line on; numbers count up from a given one. One thread of wrk only.

local names, at, number
local method, path, body = os.getenv("LOAD_METHOD"), os.getenv("LOAD_PATH"), os.getenv("LOAD_BODY")

function init(arguments)
  names, at, number = {}, tonumber(os.getenv("LOAD_AT")), tonumber(os.getenv("LOAD_NUMBER"))
  for line in io.lines(os.getenv("LOAD_NAMES")) do names[#names + 1] = line end
end

function request()
  at, number = at + 1, number + 1
  local values = { name = names[at % #names + 1], number = string.format("%d", number) }
  return wrk.format(method, (path:gsub("@(%a+)@", values)), nil, body and (body:gsub("@(%a+)@", values)))
end

function done(summary, latency)
  local errors = summary.errors
  io.write(string.format(
    '\n{"count": %d, "seconds": %f, "p50_ms": %f, "p95_ms": %f, "p99_ms": %f, "refused": %d, "broken": %d}\n',
    summary.requests, summary.duration / 1e6,
    latency:percentile(50) / 1e3, latency:percentile(95) / 1e3, latency:percentile(99) / 1e3,
    errors.status, errors.connect + errors.read + errors.write + errors.timeout))
end
