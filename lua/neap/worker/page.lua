--- The page at `/`: how the worker stands, once a second, for people. It is one response, its style
--- and its script in it; both are let in by a number that is used once, and nothing else may run,
--- be loaded, or be sent elsewhere. What it shows comes by /v1/events.
local bit = require "bit"
local C = require "neap.engine"

local assert, concat, open = assert, table.concat, io.open

local PARTS = debug.getinfo(1, "S").source:match "^@(.*)%.lua$" .. "/page."

local function read(ending)
  local file = assert(open(PARTS .. ending, "rb"))
  local text = file:read "*a"
  file:close()
  return text
end

local text = read "html":gsub("{{(%l+)}}\n", { style = read "css", script = read "js" })

local page = {}
page.__index = page

---@param secret ffi.cdata*  struct neap_keys: numbers are drawn under its secret
function page.new(secret)
  return setmetatable({ secret = secret, drawn = 0 }, page)
end

--- A number that nobody can foresee.
local function draw(self)
  local parts = {}
  for i = 1, 2 do
    self.drawn = self.drawn + 1
    local name = ("page %d"):format(self.drawn)
    parts[i] = bit.tohex(C.neap_keys_hash(self.secret, name, #name))
  end
  return concat(parts)
end

--- Its text, and the policy that goes with it.
---@return string text
---@return string policy  for Content-Security-Policy
function page:write()
  local nonce = draw(self)
  return (text:gsub("{{nonce}}", nonce)),
    ("default-src 'none'; script-src 'nonce-%s'; style-src 'nonce-%s'; img-src data:; "
      .. "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"):format(
      nonce, nonce)
end

return page
