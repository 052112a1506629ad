--- Dates as headers carry them, as seconds since 1970.
---
---     HTTP date   Sun, 06 Nov 1994 08:49:37 GMT      IMF-fixdate, what is sent today
---                 Sunday, 06-Nov-94 08:49:37 GMT     RFC 850
---                 Sun Nov  6 08:49:37 1994           asctime
---     RFC 3339    1994-11-06T08:49:37Z               offsets, too: +01:00
---
--- The calendar is real: there is no 31 February, which others read as 3 March. A year of two
--- digits is the latest that is not more than 50 years ahead (RFC 9110, 5.6.7): which one that is
--- depends on today, so `now` is asked for and no clock is read here.
---
--- `exact` takes the three forms letter by letter, and a weekday that is the date's. Otherwise the
--- weekday may be any word, a day have one digit, and RFC 850 a short weekday or a long year: what
--- servers do get wrong. Months and GMT are in any case, whichever way.
local lpeg = require "lpeg"

local P, R, S = lpeg.P, lpeg.R, lpeg.S
local C, Cc, Cg, Ct = lpeg.C, lpeg.Cc, lpeg.Cg, lpeg.Ct
local floor = math.floor
local ipairs, tonumber = ipairs, tonumber

local date = {}

-- ---- the calendar -----------------------------------------------------------------------------

local DAYS = { 31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31 }

local function days_in(year, month)
  local leap = month == 2 and year % 4 == 0 and (year % 100 ~= 0 or year % 400 == 0)
  return DAYS[month] + (leap and 1 or 0)
end

--- Days from 1970 to a date of the Gregorian calendar, which is taken to have been in use always.
--- Years begin in March, so that the leap day is their last (H. Hinnant, days_from_civil).
local function days_until(year, month, day)
  if month <= 2 then year = year - 1 end
  local era = floor(year / 400)
  local of_era = year - era * 400
  local of_year = floor((153 * ((month + 9) % 12) + 2) / 5) + day - 1
  return era * 146097 + of_era * 365 + floor(of_era / 4) - floor(of_era / 100) + of_year - 719468
end

--- The year that an instant is in.
local function year_of(at)
  local days = floor(at / 86400)
  local year = 1970 + floor(days / 365.2425)
  if days_until(year, 1, 1) > days then return year - 1 end
  if days_until(year + 1, 1, 1) <= days then return year + 1 end
  return year
end

local function seconds(year, d)
  return days_until(year, d.month, d.day) * 86400 + d.hour * 3600 + d.minute * 60 + d.second
end

--- The instant, if there is such a date.
---@param d table
---@param leap_second boolean
---@return number?
local function instant(d, leap_second)
  if d.day < 1 or d.day > days_in(d.year, d.month) or d.hour > 23 or d.minute > 59
      or d.second > (leap_second and 60 or 59) then
    return nil
  end
  return seconds(d.year, d)
end

--- The year that two digits mean: the latest whose date is at most 50 years ahead.
local function full_year(d, now)
  local year = year_of(now) + 50
  year = year - (year - d.short_year) % 100
  if seconds(year - 50, d) > now then year = year - 100 end
  return year
end

-- ---- grammars ---------------------------------------------------------------------------------

local function any_case(text)
  local pattern = P(true)
  for c in text:gmatch "." do pattern = pattern * S(c:lower() .. c:upper()) end
  return pattern
end

--- One of several words, in any case, as its number.
local function numbered(words)
  local choice = P(false)
  for i, word in ipairs(words) do choice = choice + any_case(word) * Cc(i) end
  return choice
end

local digit, letter = R "09", R("az", "AZ")
local d2, d4 = digit * digit, digit * digit * digit * digit
local blank = S " \t"
local function number(pattern, name) return Cg(C(pattern) / tonumber, name) end

local SHORT = { "Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun" }
local LONG = { "Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday" }
local MONTHS = {
  "Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec",
}

local month = Cg(numbered(MONTHS), "month")
local time = number(d2, "hour") * ":" * number(d2, "minute") * ":" * number(d2, "second")
local gmt = any_case "GMT"
local short_day, long_day = Cg(numbered(SHORT), "weekday"), Cg(numbered(LONG), "weekday")
local year, short_year, day = number(d4, "year"), number(d2, "short_year"), number(d2, "day")
local loose_day = number(digit * digit ^ -1, "day")
local any_day = letter ^ 1 * P "," ^ -1
local loose_year = year + short_year

local function whole(pattern) return blank ^ 0 * Ct(pattern) * blank ^ 0 * -P(1) end

local exact = whole(
  short_day * ", " * day * " " * month * " " * year * " " * time * " " * gmt
  + long_day * ", " * day * "-" * month * "-" * short_year * " " * time * " " * gmt
  + short_day * " " * month * " " * (day + P " " * number(digit, "day")) * " " * time * " " * year)

local gap = blank ^ 1
local loose = whole(
  any_day * gap * loose_day * gap * month * gap * year * gap * time * gap * gmt
  + any_day * gap * loose_day * "-" * month * "-" * loose_year * gap * time * gap * gmt
  + any_day * gap * month * gap * loose_day * gap * time * gap * year)

local offset = S "Zz" * Cg(Cc(0), "offset")
  + Cg(S "+-" / { ["+"] = 1, ["-"] = -1 }, "sign") * number(d2, "off_hour") * ":"
  * number(d2, "off_minute")
local rfc3339 = whole(year * "-" * number(d2, "month") * "-" * day * "T" * time
  * (P "." * digit ^ 1) ^ -1 * offset)

-- ---- readers ----------------------------------------------------------------------------------

--- An HTTP date.
---@param text string
---@param now number        seconds since 1970: for years of two digits
---@param to_the_letter? boolean  only what RFC 9110 says, weekday included
---@return number?  seconds since 1970; nil: there is no such date
function date.http(text, now, to_the_letter)
  local d = (to_the_letter and exact or loose):match(text)
  if not d then return nil end
  if d.short_year then d.year = full_year(d, now) end
  local at = instant(d, not to_the_letter)
  -- 1 January 1970 was a Thursday.
  if at and d.weekday and (floor(at / 86400) + 3) % 7 + 1 ~= d.weekday then return nil end
  return at
end

--- An instant of RFC 3339, in whole seconds: a fraction is read over.
---@param text string
---@return number?  seconds since 1970
function date.rfc3339(text)
  local d = rfc3339:match(text)
  if not d or d.month < 1 or d.month > 12 then return nil end
  local at = instant(d, true)
  if not at or d.offset then return at end
  if d.off_hour > 23 or d.off_minute > 59 then return nil end
  return at - d.sign * (d.off_hour * 60 + d.off_minute) * 60
end

return date
