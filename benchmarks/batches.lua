-- Batches of 100 heartbeats a request, each of 4 interfaces and 3 host values, as JSON arrays.
--   BENCH_FORM   relay: of 100 servers, one heartbeat each, of this moment
--                replay: of one server, half a minute apart, as an agent sends them after an outage, oldest first
-- The texts are made once, with holes for what changes, so that making them costs wrk little.
dofile("report.lua")

local BATCH, OUTAGE_SECONDS, STEP_SECONDS = 100, 86400, 30
local SERVERS = { relay = 1000, replay = 200 }  -- of each thread
local form, headers = os.getenv("BENCH_FORM"), {
    ["Content-Type"] = "application/json", ["Authorization"] = "Bearer " .. os.getenv("BENCH_KEY"),
}
local names = { "eth0", "eth1", "docker0", "tailscale0" }
local started = os.time()
local kind = form == "replay" and "replay-" .. started or form  -- what is replayed is new: servers of this run alone
local sent, texts = 0, {}

-- @T is the time, @G what all counters have grown by, in front of six digits of their own.
local function heartbeat(server, time)
    local interfaces = {}
    for i, name in ipairs(names) do
        interfaces[i] = string.format('{"name":"%s","rx_bytes":@G%06d,"tx_bytes":@G%06d,"rx_packets":@G%03d,' ..
            '"tx_packets":@G%03d,"is_up":true}', name, math.random(999999), math.random(999999), i, i)
    end
    return string.format('{"server_id":"%s-%d-%d","hostname":"%s.local","boot_id":"5f1c8a52-6f6d-4c8e-9a51-7f0d0d4c9b11","timestamp":"%s",' ..
        '"metrics":{"cpu_percent":%.1f,"memory_percent":45.2,"disk_percent":60.0},"network_interfaces":[%s]}',
        kind, number, server, form, time, math.random() * 100, table.concat(interfaces, ","))
end

function init()
    if form == "relay" then
        for group = 0, SERVERS.relay / BATCH - 1 do
            local heartbeats = {}
            for i = 1, BATCH do
                heartbeats[i] = heartbeat(group * BATCH + i, "@T")
            end
            texts[group] = "[" .. table.concat(heartbeats, ",") .. "]"
        end
    else
        for server = 0, SERVERS.replay - 1 do
            texts[server] = heartbeat(server, "@T")
        end
    end
end

local function relayed()
    -- Later with every round: the clock's seconds, and the round as their fraction.
    local round = math.floor(sent / (#texts + 1))
    return (texts[sent % (#texts + 1)]:gsub("@(.)", {
        T = os.date("!%Y-%m-%dT%H:%M:%S", os.time()) .. string.format(".%06dZ", round % 1000000),
        G = string.format("%d", started % 1e6 * 1000 + round),
    }))
end

local function replayed()
    -- Each server's first batch, then each one's second. The day is over after 1.1 million heartbeats.
    local round, heartbeats = math.floor(sent / (#texts + 1)), {}
    local text = texts[sent % (#texts + 1)]
    for i = 1, BATCH do
        local step = round * BATCH + i
        heartbeats[i] = text:gsub("@(.)", {
            T = os.date("!%Y-%m-%dT%H:%M:%SZ", started - OUTAGE_SECONDS + step * STEP_SECONDS),
            G = string.format("%d", 1000000 + step),
        })
    end
    return "[" .. table.concat(heartbeats, ",") .. "]"
end

function request()
    local body = form == "relay" and relayed() or replayed()
    sent = sent + 1
    return wrk.format("POST", "/api/v1/agents/heartbeats", headers, body)
end
