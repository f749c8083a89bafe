-- Sparklines of random series of the 50 servers with 4 interfaces that benchmarks/run.py loads.
local key, period = os.getenv("LINKBEAT_API_KEY"), os.getenv("BENCH_PERIOD")
local headers = { ["Authorization"] = "Bearer " .. key }
local names = { "eth0", "eth1", "docker0", "tailscale0" }

function request()
    return wrk.format("GET", string.format("/api/v1/metrics/sparkline/bench-%02d/network?period=%s&interface=%s",
        math.random(0, 49), period, names[math.random(4)]), headers)
end

function done(summary, latency, _)
    local errors = summary.errors
    print(string.format("RESULT %d %d %d %d %d", summary.requests, summary.duration,
        errors.status + errors.connect + errors.read + errors.write + errors.timeout,
        latency:percentile(50), latency:percentile(99)))
end
