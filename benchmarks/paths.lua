-- GETs, in random order, of the paths in the file BENCH_PATHS, one a line.
dofile("report.lua")

local requests = {}

function init()
    math.randomseed(number + 1)
    -- Answers that are kept are nobody's figures: each is to be computed, unless BENCH_KEPT asks for just those.
    local key, headers = os.getenv("BENCH_KEY"), {}
    if not os.getenv("BENCH_KEPT") then
        headers["Cache-Control"] = "no-cache"
    end
    if key then
        headers["Authorization"] = "Bearer " .. key
    end
    for path in io.lines(os.getenv("BENCH_PATHS")) do
        requests[#requests + 1] = wrk.format("GET", path, headers)
    end
end

function request()
    return requests[math.random(#requests)]
end
