-- One heartbeat a request: 4 interfaces and 3 host values, counters that grow, 1,000 servers a thread.
local threads = 0
function setup(thread)
    thread:set("number", threads)
    threads = threads + 1
end

local sent, key = 0, os.getenv("LINKBEAT_API_KEY")
local names = { "eth0", "eth1", "docker0", "tailscale0" }
local headers = { ["Content-Type"] = "application/json", ["Authorization"] = "Bearer " .. key }

function request()
    sent = sent + 1
    local server, interfaces = sent % 1000, {}
    for i, name in ipairs(names) do
        local rx = 1000000000 + sent * 1000 * i + math.random(900)
        interfaces[i] = string.format(
            '{"name":"%s","rx_bytes":%d,"tx_bytes":%d,"rx_packets":%d,"tx_packets":%d,"is_up":true}',
            name, rx, math.floor(rx / 3), sent, sent)
    end
    return wrk.format("POST", "/api/v1/agents/heartbeat", headers, string.format(
        '{"server_id":"server-%d-%d","hostname":"server-%d.local","boot_id":"boot-1",' ..
        '"metrics":{"cpu_percent":%.1f,"memory_percent":45.2,"disk_percent":60.0},"network_interfaces":[%s]}',
        number, server, server, math.random() * 100, table.concat(interfaces, ",")))
end

function done(summary, latency, _)
    local errors = summary.errors
    print(string.format("RESULT %d %d %d %d %d", summary.requests, summary.duration,
        errors.status + errors.connect + errors.read + errors.write + errors.timeout,
        latency:percentile(50), latency:percentile(99)))
end
