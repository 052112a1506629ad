--- Formats: how providers write when a limit resets. Each reads a text and gives seconds from now,
--- or nil. What is past is 0.
---
---     seconds        30                        a whole number
---     milliseconds   1500
---     duration       7.66s, 1m26.4s, 20ms, 30  h, m, s, ms in any order, summed; bare: seconds
---     unix           1767225600                seconds since 1970, also before that
---     unix_ms        1767225601500
---     rfc3339        2026-01-01T00:00:00Z      its fraction is read over
---     http_date      Thu, 01 Jan 2026 …        as in Retry-After
local lpeg = require "lpeg"
local date = require "neap.headers.date"
local headers = require "neap.headers"

local P, R, S = lpeg.P, lpeg.R, lpeg.S
local C, Cc, Cf, Cg = lpeg.C, lpeg.Cc, lpeg.Cf, lpeg.Cg
local tonumber = tonumber

local formats = {}

local digit, blank = R "09", S " \t" ^ 0
local UNITS = { h = 3600, m = 60, s = 1, ms = 0.001 }
local MOST = 2 ^ 64

-- A sum of parts; nothing, once one of them is more than 64 bits hold.
local function plus(sum, text, unit)
  local n = sum and tonumber(text)
  return n and n < MOST and sum + n * UNITS[unit]
end

local number = C(digit ^ 1 * (P "." * digit ^ 1) ^ -1)
local unit = P "ms" + S "hms"
local parts = Cf(Cc(0) * Cg(number * C(unit)) ^ 1, plus)
local duration = blank * (parts + Cf(Cc(0) * Cg(number * Cc "s"), plus)) * blank * -P(1)
local signed = blank * C(P "-" ^ -1) * C(digit ^ 1) * blank * -P(1)

local function from_now(at, now) return at and (at > now and at - now or 0) end

local function whole(text)
  local sign, digits = signed:match(text)
  local n = sign and headers.count(digits)
  return n and (sign == "-" and -n or n)
end

function formats.seconds(text) return headers.count(text) end

function formats.milliseconds(text)
  local n = headers.count(text)
  return n and n / 1000
end

function formats.duration(text) return duration:match(text) or nil end
function formats.unix(text, now) return from_now(whole(text), now) end

function formats.unix_ms(text, now)
  local n = whole(text)
  return from_now(n and n / 1000, now)
end

function formats.rfc3339(text, now) return from_now(date.rfc3339(text), now) end
function formats.http_date(text, now) return from_now(date.http(text, now), now) end

return formats   ---@type table<string, fun(text: string, now: number): number?>
