-- Script of wrk: the method, pauses between the requests of a connection, and the figures as JSON.

wrk.method = os.getenv("METHOD")

-- Mean in milliseconds; exponentially distributed, so that requests arrive at random.
local pause = tonumber(os.getenv("PAUSE"))

if pause > 0 then
  function delay()
    return -pause * math.log(1 - math.random())
  end
end

function done(summary, latency, requests)
  local errors = summary.errors
  io.write(string.format(
    '\n{"count": %d, "seconds": %f, "p50": %f, "p99": %f, "errors": %d}\n',
    summary.requests,
    summary.duration / 1e6,
    latency:percentile(50) / 1e3,
    latency:percentile(99) / 1e3,
    errors.connect + errors.read + errors.write + errors.status + errors.timeout
  ))
end
