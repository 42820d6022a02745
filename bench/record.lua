-- Each of wrk's threads has one connection, and writes a line for each answer into a file of its own:
-- when it was asked (microseconds since 1970), how long it took (microseconds), version, worker, 1 if it is right.
-- Arguments: the file with the body, the folder for the lines, then "version=text" for what an answer of it must hold.

local ffi = require("ffi")
ffi.cdef([[
  typedef struct { long seconds; long nanoseconds; } moment;
  int clock_gettime(int clock, moment *now);
]])

local threads = 0
local now = ffi.new("moment")
local asked, lines, expected = 0, nil, {}

local function micros()
  ffi.C.clock_gettime(0, now)
  return tonumber(now.seconds) * 1000000 + math.floor(tonumber(now.nanoseconds) / 1000)
end

function setup(thread)
  thread:set("id", threads)
  threads = threads + 1
end

function init(args)
  local file = assert(io.open(args[1], "rb"))
  wrk.method, wrk.body = "POST", file:read("*a")
  wrk.headers["content-type"] = "application/json"
  file:close()
  lines = assert(io.open(args[2] .. "/" .. id .. ".txt", "w"))
  lines:setvbuf("line")
  for i = 3, #args do
    local version, text = args[i]:match("^(%d+)=(.*)$")
    expected[version] = text
  end
end

function request()
  asked = micros()
  return wrk.format()
end

function response(status, headers, body)
  local taken = micros() - asked
  local version, worker = headers["x-ratchet-model-version"] or "-", headers["x-ratchet-worker"] or "-"
  local text = expected[version]
  local right = status == 200 and text and body:find(text, 1, true)
    and body:find('"model_version":"' .. version .. '"', 1, true)
  lines:write(string.format("%.0f %d %s %s %d\n", asked, taken, version, worker, right and 1 or 0))
end

function done(summary, latency, requests)
  local errors = summary.errors
  io.write(string.format("RESULT %d %d\n", summary.requests,
    errors.connect + errors.read + errors.write + errors.status + errors.timeout))
end
