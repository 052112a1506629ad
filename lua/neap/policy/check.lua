--- What each declaration of a policy file may say, checked against the text it stands in.
--
-- Here are the declarations; their parts are in `limits` (a policy's own and its scopes') and
-- `manners` (everything else); `look` says what a reading and a spot are.
local address = require "neap.policy.address"
local limits = require "neap.policy.limits"
local look = require "neap.policy.look"
local manners = require "neap.policy.manners"
local room = require "neap.policy.room"
local warn = require "neap.policy.warn"

local getmetatable, ipairs, pairs = getmetatable, ipairs, pairs
local setmetatable, type = setmetatable, type
local insert = table.insert

local blank = room.blank
local show, place_of = look.show, look.place_of
local typed, words_of, check_word = look.typed, look.words_of, look.check_word

local check = {}

--- What a worker can hold to: kinds and modes of limit, and fields of a policy. What is not true
--- here is read and checked, and refused by who is to hold to it; whoever brings it switches it on.
check.supported = { rate = true, in_flight = true, unlimited = true, closed = true, burst = true,
  smooth = true, sliding = true, fixed = false, doc = true, limits = true, lease = true,
  per = true, override = true, estimate = true, backoff = true, breaker = true, adaptive = true,
  queue = true, retry = true, shed = true, on = true, start = true, on_change = true }

local LONGEST_DOC = 4096
local CATEGORIES = { "acquire", "read", "events", "admin" }
local ALLOWED = { "acquire", "read" }      -- what a user may do who is told nothing
local STARTS = { "state", "empty", "full" }
local CHANGES = { "keep used", "keep balance", "scale", "reset" }

local FIELDS = {
  policy = { doc = true, limits = true, lease = true, estimate = true, backoff = true,
    breaker = true, queue = true, retry = true, on = true, adaptive = true, shed = true,
    start = true, on_change = true },
  user = { password = true, allow = true },
  listen = { resp = true, http = true },
}

local FIELD_NAMES = {}
for noun, fields in pairs(FIELDS) do FIELD_NAMES[noun] = look.list_of(fields) end

local function check_fields(reading, spot, body, kind, path, owner, known)
  look.check_fields(reading, spot, body, known or FIELDS[kind], FIELD_NAMES[kind], path, owner)
end

-- ---- policies ---------------------------------------------------------------------------------

-- What `per` gave, which stands in a policy without a name; and the fields that are then known.
local function take_scopes(reading, body)
  local known, entries = setmetatable({}, { __index = FIELDS.policy }), {}
  for key, value in ipairs(body) do
    if getmetatable(value) == room.Scope then
      known[key] = true
      entries[#entries + 1] = value
      reading.loose[value.origin] = nil
    end
  end
  return entries, known
end

-- Where `per "tenant" { … }` stands.
local function spot_of_scope(reading)
  return function (entry)
    local source = entry.source
    local site = source:site("per", entry.line, entry.name, entry.body) or {}
    local line = site.says or site.at and source:place(site.at) or entry.line
    return { at = site.at, line = line, source = source,
      node = site.node or type(entry.body) == "table" and look.like(reading, entry.body) or nil,
      name = { at = site.name_at, line = line, source = source } }
  end
end

-- on_change is one word for all limits, or one for each.
local function check_change(reading, spot, body, declared, names)
  if type(body.on_change) ~= "table" or body.on_change == blank then
    declared.on_change = look.one_of(reading, spot, body, "on_change", "", CHANGES)
    return
  end
  local inner = look.spot_in(reading, spot, "on_change", body.on_change)
  local by_name = {}
  look.check_twice(reading, inner, "on_change.")
  for name in pairs(body.on_change) do
    local entry = { word = name, place = place_of(inner, name) }
    if type(name) ~= "string" then
      reading.report:add(entry.place, "on_change", "the name of a limit expected before the value")
    elseif not names or check_word(reading, {}, entry, names, "on_change." .. show(name), "limit")
    then
      by_name[name] = look.one_of(reading, inner, body.on_change, name, "on_change.", CHANGES)
    end
  end
  for _, limit in ipairs(declared.limits) do limit.on_change = by_name[limit.name] end
end

function check.policy(reading, spot, name, body)
  local owner = ("policy '%s'"):format(show(name))
  local entries, known = take_scopes(reading, body)
  check_fields(reading, spot, body, "policy", "", owner, known)
  for key in pairs(FIELDS.policy) do
    if body[key] ~= nil then look.held(reading, place_of(spot, key), key, key) end
  end

  local doc = typed(reading, spot, body, "doc", "string", "")
  if doc and #doc > LONGEST_DOC then
    reading.report:add(place_of(spot, "doc"), "doc", ("longer than %d bytes"):format(LONGEST_DOC))
  end
  local declared = { name = name, line = spot.line, doc = doc, limits = {}, costs = {}, per = {} }
  local own = limits.own(reading, spot, body, declared, owner, entries[1] ~= nil)
  local names = own and {}
  for each, place in pairs(own or {}) do names[each] = place end
  limits.scopes(reading, entries, spot_of_scope(reading), declared, owner, names)

  declared.estimate = manners.estimate(reading, spot, body)
  declared.lease = manners.lease(reading, spot, body, owner, names)
  declared.backoff = manners.backoff(reading, spot, body, owner, own, declared)
  declared.breaker = manners.breaker(reading, spot, body, owner)
  declared.adaptive = manners.adaptive(reading, spot, body, own, declared)
  declared.queue = manners.queue(reading, spot, body, owner)
  declared.retry = manners.retry(reading, spot, body, owner)
  declared.shed = manners.shed(reading, spot, body, owner, declared.queue)
  declared.on = manners.on(reading, spot, body, owner)
  declared.start = look.one_of(reading, spot, body, "start", "", STARTS)
  check_change(reading, spot, body, declared, own)
  insert(reading.tree.policies, declared)
  warn.policy(reading, spot, declared)
end

-- ---- users, listeners -------------------------------------------------------------------------

function check.user(reading, spot, name, body)
  local owner = ("user '%s'"):format(show(name))
  check_fields(reading, spot, body, "user", "", owner)
  local password = typed(reading, spot, body, "password", "string", "")
  if body.password == nil then
    reading.report:add(spot.name, nil, owner .. " has no password")
  elseif password == "" then
    reading.report:add(place_of(spot, "password"), "password", "the password of " .. owner
      .. " is empty")
  end
  local known, seen, allow = {}, {}, {}
  for _, category in ipairs(CATEGORIES) do known[category] = true end
  for _, entry in ipairs(words_of(reading, spot, body, "allow", "")) do
    check_word(reading, seen, entry, known, "allow", "category")
  end
  if body.allow == nil then
    for _, category in ipairs(ALLOWED) do seen[category] = true end
  end
  for _, category in ipairs(CATEGORIES) do
    if seen[category] then allow[#allow + 1] = category end
  end
  reading.tree.users[#reading.tree.users + 1] = { name = name, password = password, allow = allow,
    from = reading.secrets[password] }
end

local function check_addresses(reading, spot, kind, given)
  local listed = type(given) == "table" and given ~= blank
  local inner = listed and look.spot_in(reading, spot, kind, given) or spot
  for i, text in ipairs(listed and given or { given }) do
    local key = listed and i or kind
    local parsed, message, offset = address.parse(text)
    local place = look.place_inside(inner, key, text, offset)
    local path = "listen." .. kind .. (listed and ("[%d]"):format(i) or "")
    if text == blank then
      parsed = nil
    elseif not parsed then
      reading.report:add(place, path, message)
    elseif reading.served[text] then
      reading.report:add(place, path, ("'%s' twice"):format(show(text)))
    elseif not parsed.private and not reading.has_users then
      reading.report:add(place, path, ("'%s' is open to others: without a user only loopback and "
        .. "unix addresses are served"):format(show(text)))
    else
      insert(reading.tree.listen[kind], text)
    end
    if parsed then reading.served[text] = true end
  end
end

function check.listen(reading, spot, _, body)
  check_fields(reading, spot, body, "listen", "listen.", "listen")
  reading.served = {}
  if body.resp ~= nil then check_addresses(reading, spot, "resp", body.resp) end
  if body.http ~= nil then check_addresses(reading, spot, "http", body.http) end
end

return check
