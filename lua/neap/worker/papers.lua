--- NEAP.POLICY: the policies as they are declared, and texts of what they might be.
---
---     NEAP.POLICY GET [name]     JSON
---     NEAP.POLICY CHECK text     OK, or what is wrong with it
---     NEAP.POLICY DIFF text      what would become of each limit
---     NEAP.POLICY RELOAD         read the file anew, and what became of each (neap.worker.renewal)
---     NEAP.POLICY LOAD text      the same with a text
---
--- A text is read in the room of policy files, within its budgets; callers wait so long.
local C = require "neap.engine"
local diff = require "neap.policy.diff"
local policy = require "neap.policy"
local reply = require "neap.worker.reply"

local concat, ipairs, setmetatable, tonumber = table.concat, ipairs, setmetatable, tonumber
local tostring = tostring

local NAME = "policy"        -- what a text that came over the wire is called
local MOST_REPLY = 16384     -- bytes of what is wrong

local papers = {}

local function read(worker, text)
  local function now() return tonumber(C.neap_loop_now(worker.loop)) / 1e9 end
  local tree, mistakes = policy.parse(text, NAME, { supported = policy.supported, clock = now })
  if tree then return tree end
  local lines = {}
  for i, mistake in ipairs(mistakes) do lines[i] = tostring(mistake) end
  return nil, concat(lines, "\n"):sub(1, MOST_REPLY)
end

local VERBS = {}

function VERBS.GET(desk, words, worker)
  local tree = worker.tree
  if words[2] then
    local _, err = desk.accounts:policy(words[2])
    if err then return nil, err end
    tree = setmetatable({ policies = {} }, { __index = tree })
    for _, declared in ipairs(worker.tree.policies) do
      if declared.name == words[2] then tree.policies[1] = declared end
    end
  end
  return policy.to_json(tree)
end

function VERBS.CHECK(_, words, worker)
  local tree, wrong = read(worker, words[2])
  return tree and reply.status "OK" or reply.verbatim(wrong)
end

function VERBS.DIFF(_, words, worker)
  local tree, wrong = read(worker, words[2])
  if not tree then return nil, "ERR " .. wrong:gsub("\n", "; ") end
  local rows, changes = {}, {}
  for _, change in ipairs(diff.compare(worker.tree, tree)) do
    if change.change ~= "same" then changes[#changes + 1] = change end
  end
  for i, change in ipairs(changes) do rows[i] = diff.rows({ change })[1] end
  return rows
end

--- These are answered when they are done.
local function later(_, words, worker, client)
  if not worker.renewal then return nil, "ERR this worker has no policy file" end
  worker.renewal:command(client, words)
end

VERBS.RELOAD, VERBS.LOAD = later, later

local LEAST = { GET = 1, CHECK = 2, DIFF = 2, RELOAD = 1, LOAD = 2 }
local MOST = { GET = 2, CHECK = 2, DIFF = 2, RELOAD = 1, LOAD = 2 }

---@param desk neap.Desk
---@param client integer
---@param words string[]
---@param worker neap.Worker
function papers.run(desk, client, words, worker)
  local name = words[1]:upper()
  local verb = VERBS[name]
  if not verb or #words < LEAST[name] or #words > MOST[name] then
    return desk:fail(client, "ERR POLICY takes GET and perhaps a name, RELOAD, or CHECK, " ..
      "DIFF or LOAD and a text")
  end
  local value, err = verb(desk, words, worker, client)
  if err then return desk:fail(client, err) end
  if value == nil then return end
  reply.write(C.neap_server_reply(desk.server, client), value)
end

return papers
