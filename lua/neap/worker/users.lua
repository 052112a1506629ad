--- Who may come in: names, passwords and rights, for RESP's AUTH and HTTP's Basic alike.
local bit = require "bit"
local commands = require "neap.worker.commands"
local structured = require "neap.headers".structured

local ipairs, max = ipairs, math.max
local bor, bxor, byte = bit.bor, bit.bxor, string.byte

local users = {}

---@class neap.User
---@field name string
---@field password string
---@field rights integer   a sum, as struct neap_command's allow

--- Users by name, or nil when there are none.
---@param tree neap.tree
---@return table<string, neap.User>?
function users.of(tree)
  if not tree.users[1] then return nil end
  local all = {}
  for _, user in ipairs(tree.users) do
    all[user.name] = { name = user.name, password = user.password,
      rights = commands.rights(user.allow) }
  end
  return all
end

--- Equal, in a time that tells nothing about where they differ.
local function same(secret, offered)
  local difference = bxor(#secret, #offered)
  for i = 1, #offered do
    local own = byte(secret, (i - 1) % max(#secret, 1) + 1) or 0
    difference = bor(difference, bxor(byte(offered, i), own))
  end
  return difference == 0
end

--- The user of that name, if this is the password.
---@param all table<string, neap.User>
---@param name string
---@param password string
---@return neap.User?
function users.admit(all, name, password)
  local user = all[name]
  return user and same(user.password, password) and user or nil
end

--- Who it is that says so in HTTP's field Authorization (RFC 7617).
---@param all table<string, neap.User>
---@param authorization string?
---@return neap.User?
function users.basic(all, authorization)
  local base64 = authorization and authorization:match "^[Bb][Aa][Ss][Ii][Cc] +([%w+/]+=*)$"
  local read = base64 and structured.item(":" .. base64 .. ":")
  if not read then return nil end
  local name, password = read.value:match "^([^:]*):(.*)$"
  return name and users.admit(all, name, password)
end

return users
