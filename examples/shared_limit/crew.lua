--- Processes that end when we do, and a directory that goes with them.
--
-- One shell starts everything. It takes its orders from a pipe that we hold, and a pipe ends with
-- its holder, however that dies: return, error, Ctrl-C, kill -9. Then the shell ends the crew and
-- removes the directory. It has a session of its own, so a Ctrl-C at the terminal reaches us alone.
--
--      us ──── pipe: "start this" ────> sh ──┬── nginx
--        ╰──── gone: end of file            ├── neap run
--                                           ╰── client, client, …
local crew = {}
crew.__index = crew

-- First everybody is asked, then, three seconds later, servers that did not listen are killed. The
-- shell ends after all of them; its last line is for what they started and left behind.
local ORDERS = [[
dir=%s servers=
alive() {
	for one in $servers; do kill -0 $one && return; done
	return 1
}
finish() {
	exec 2>/dev/null
	trap '' TERM
	kill 0
	tries=60
	while [ $tries -gt 0 ] && alive; do
		sleep 0.05
		tries=$((tries - 1))
	done
	kill -9 $servers
	wait
	rm -rf "$dir"
	kill -9 0
}
trap finish EXIT
cd "$dir" || exit
]]

--- A text as one word of a shell.
local function quoted(text) return "'" .. tostring(text):gsub("'", "'\\''") .. "'" end

---@class crew
---@field dir string  where everybody runs; what NAME says goes to dir/NAME.out

---@return crew
function crew.gather()
  local pipe = assert(io.popen "mktemp -d")
  local dir = pipe:read "*l"
  pipe:close()
  if not dir then error("mktemp -d makes no directory", 0) end
  local shell = assert(io.popen("exec setsid sh", "w"))
  shell:setvbuf "no"
  shell:write(ORDERS:format(quoted(dir)))
  return setmetatable({ dir = dir, shell = shell }, crew)
end

--- Start a program that is to run until the end, or, for `send`, one that ends by itself.
---@param name string
---@param ... string|integer  the program and its arguments
function crew:keep(name, ...)
  self:send(name, ...)
  self.shell:write "servers=\"$servers $!\"\n"
end

function crew:send(name, ...)
  local words = {}
  for i, word in ipairs { ... } do words[i] = quoted(word) end
  self.shell:write(("%s >%s.out 2>&1 &\n"):format(table.concat(words, " "), name))
end

--- What NAME has said so far.
function crew:said(name)
  local file = io.open(("%s/%s.out"):format(self.dir, name))
  if not file then return "" end
  local text = file:read "*a"
  file:close()
  return text
end

--- End everybody, and wait for that.
function crew:dismiss() self.shell:close() end

return crew
