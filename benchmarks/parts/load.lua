-- Load for wrk: the bodies of a file, one a line, in order from a given one on; the summary as one line of JSON.
local bodies, at = {}, 0

function init(arguments)
    for line in io.lines(arguments[1]) do
        bodies[#bodies + 1] = wrk.format("POST", arguments[2], {["Content-Type"] = "application/json"}, line)
    end
    at = tonumber(arguments[3])
end

function request()
    at = at % #bodies + 1
    return bodies[at]
end

function done(summary, latency, requests)
    local errors = summary.errors
    io.write(string.format(
        'SUMMARY {"requests": %d, "microseconds": %d, "p50": %d, "p99": %d, "max": %d, "errors": %d, "not_2xx": %d}\n',
        summary.requests, summary.duration, latency:percentile(50), latency:percentile(99), latency.max,
        errors.connect + errors.read + errors.write + errors.timeout, errors.status))
end
