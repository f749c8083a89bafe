-- What every wrk script here shares: a number for each thread, and one line for benchmarks/harness.py at the end.
local threads = 0
function setup(thread)
    thread:set("number", threads)
    threads = threads + 1
end

-- Requests that were answered below 400, microseconds, errors, and latencies in microseconds.
function done(summary, latency, _)
    local errors = summary.errors
    print(string.format("RESULT %d %d %d %d %d", summary.requests - errors.status, summary.duration,
        errors.status + errors.connect + errors.read + errors.write + errors.timeout,
        latency:percentile(50), latency:percentile(99)))
end
