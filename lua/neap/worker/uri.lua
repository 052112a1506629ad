--- Parts of a URI (RFC 3986), and forms, which are written like queries.
local char, tonumber = string.char, tonumber

local uri = {}

--- What a text with %xx in it stands for, or nil: it is malformed.
---@param text string
---@return string?
function uri.decode(text)
  if text:gsub("%%%x%x", ""):find("%", 1, true) then return nil end
  return (text:gsub("%%(%x%x)", function (digits) return char(tonumber(digits, 16)) end))
end

--- `a=1&b=2` as a list of names and values, in order. A blank is %20, and a + is a +.
---@param text string?
---@return { [1]: string, [2]: string }[]?  nil: it is malformed
function uri.query(text)
  local list = {}
  for part in (text or ""):gmatch "[^&]+" do
    local name, value = part:match "^([^=]*)=?(.*)$"
    name, value = uri.decode(name), uri.decode(value)
    if not name or not value then return nil end
    list[#list + 1] = { name, value }
  end
  return list
end

return uri
