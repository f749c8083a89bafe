-- One heartbeat a request: 4 interfaces and 3 host values, counters that grow, the receiver's clock for its time unless
-- BENCH_STEP_MS is set.
--   BENCH_PATH      where it is posted
--   BENCH_WIRE      json: Linkbeat's own; influx: line protocol, a line for each interface and one for the host
--   BENCH_SERVERS   how many servers report, half of them by each thread
--   BENCH_INTERVAL  the interval that heartbeats report, in seconds; empty: none
--   BENCH_RESETS_ONE_IN    of so many heartbeats of a server, the counters of one begin again; empty: none
--   BENCH_GLITCHES_ONE_IN  of so many, one reports zeros, after which the counters go on; empty: none
--   BENCH_STEP_MS   heartbeats say their time, a server's this many milliseconds apart from the start on (json)
--   BENCH_LATE      every other heartbeat of a server arrives after the next one, with BENCH_STEP_MS; empty: none
dofile("report.lua")

local path, wire = os.getenv("BENCH_PATH"), os.getenv("BENCH_WIRE")
local servers = tonumber(os.getenv("BENCH_SERVERS")) / 2
local key, headers = os.getenv("BENCH_KEY"), nil
if key then
    headers = { ["Content-Type"] = "application/json", ["Authorization"] = "Bearer " .. key }
end
local names = { "eth0", "eth1", "docker0", "tailscale0" }
-- Counters grow from one run to the next as well: one that shrinks is a reset, which is another case.
local octets, packets = os.time() % 1e8 * 1e7, os.time() % 1e8 * 1e5
local sent = 0
local resets_one_in = tonumber(os.getenv("BENCH_RESETS_ONE_IN") or "")
local glitches_one_in = tonumber(os.getenv("BENCH_GLITCHES_ONE_IN") or "")
local interval = tonumber(os.getenv("BENCH_INTERVAL") or "")
local step_ms, started = tonumber(os.getenv("BENCH_STEP_MS") or ""), os.time()
local is_late = (os.getenv("BENCH_LATE") or "") ~= ""
local zeros = {}  -- of each server, the request before its counters began again

local formats = {
    json = {
        interface = '{"name":"%s","rx_bytes":%d,"tx_bytes":%d,"rx_packets":%d,"tx_packets":%d,"is_up":true}',
        heartbeat = '{"server_id":"%s","hostname":"%s.local","boot_id":"5f1c8a52-6f6d-4c8e-9a51-7f0d0d4c9b11",' ..
            (interval and string.format('"interval_seconds":%d,', interval) or "") ..
            (step_ms and '"timestamp":"%s",' or "%s") .. '"metrics":{"cpu_percent":%.1f,' ..
            '"memory_percent":45.2,"disk_percent":60.0},"network_interfaces":[%s]}',
    },
    influx = {
        interface = 'net,server_id=%s,interface_name=%s rx_bytes=%di,tx_bytes=%di,rx_packets=%di,tx_packets=%di,is_up=true',
        heartbeat = "host,server_id=%s cpu_percent=%.1f,memory_percent=45.2,disk_percent=60.0\n%s",
    },
}
local format = formats[wire]

function request()
    sent = sent + 1
    local server, octets, packets, sent = string.format("server-%d-%d", number, sent % servers), octets, packets, sent
    local place, round, is_zero = sent % servers, math.floor(sent / servers), false
    if glitches_one_in then
        is_zero = round > 0 and (place + round) % glitches_one_in == 0
    elseif resets_one_in then
        if round > 0 and (place + round) % resets_one_in == 0 then
            zeros[place] = sent - servers
        end
        if zeros[place] then
            octets, packets, sent = 0, 0, sent - zeros[place]
        end
    end
    if is_late and round > 0 then
        local moved = round % 2 == 1 and 1 or -1
        round, sent = round + moved, sent + moved * servers
    end
    local moment = ""
    if step_ms then
        local ms = round * step_ms
        moment = os.date("!%Y-%m-%dT%H:%M:%S", started + math.floor(ms / 1000)) .. string.format(".%03dZ", ms % 1000)
    end
    local cpu, interfaces = math.random() * 100, {}
    for i, name in ipairs(names) do
        local rx = is_zero and 0 or octets + sent * 100 * i + math.random(90)
        local tx, frames = math.floor(rx / 3), is_zero and 0 or packets + sent
        if wire == "json" then
            interfaces[i] = string.format(format.interface, name, rx, tx, frames, frames)
        else
            interfaces[i] = string.format(format.interface, server, name, rx, tx, frames, frames)
        end
    end
    if wire == "json" then
        return wrk.format("POST", path, headers,
            string.format(format.heartbeat, server, server, moment, cpu, table.concat(interfaces, ",")))
    end
    return wrk.format("POST", path, headers,
        string.format(format.heartbeat, server, cpu, table.concat(interfaces, "\n")))
end
