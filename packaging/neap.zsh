#compdef neap
# Completion of neap's command line for zsh.

_neap() {
	local curcontext=$curcontext state line
	typeset -A opt_args
	local -a verbs=(
		'run:serve the limits of a policy file to any Redis client'
		'check:read policy files and tell all that is wrong with them'
		'inspect:look into the limiters that processes share'
		'top:the same, again and again'
		'exec:run a command under a permit of a worker'
		'pace:copy lines at the pace of a limit'
		'sim:run a policy in virtual time'
		'repl:a prompt with neap and the policies of a file'
		'console:a prompt for a running worker'
		'help:explain a verb'
	)
	_arguments -C '(- *)--version[print the version]' '(- *)--help[print help]' \
		'1:verb:->verb' '*::argument:->argument' && return
	case $state in
	verb) _describe verb verbs ;;
	argument)
		case $line[1] in
		run)
			_arguments '(- *)--help[print the options]' \
				'*--listen[where, instead of what the file says]:address' \
				'*--http[where to speak HTTP]:address' \
				'--drain[how long what is held may take to come back]:duration' \
				'--log[write the log there]:file:_files' \
				'--log-format[how a line of the log looks]:format:(text json)' \
				'--verbose[log more]' \
				'--state[keep there what is used and held]:folder:_files -/' \
				'--save-every[how often to write it]:duration:' \
				'--watch[read the policy anew when it changes]' \
				'--virtual-clock[time stands still, but for DEBUG CLOCK]' \
				'1:policy:_files -g "*.lua"' ;;
		check)
			_arguments '(- *)--help[print the options]' \
				'--print[how to print what is right]:form:(table json)' \
				'--diff[what becomes of each limit of that file]:old:_files -g "*.lua"' \
				'--quiet[print nothing of what is right]' \
				'--strict[warnings are mistakes, too]' \
				'*:policy:_files -g "*.lua"' ;;
		inspect)
			_arguments '(- *)--help[print the options]' \
				'--json[one line of JSON for each]' \
				'*:segment:_files -W /dev/shm' ;;
		top)
			_arguments '(- *)--help[print the options]' \
				'--every[time between two looks]:duration' \
				'--rounds[so often, then end]:count' \
				'*:segment:_files -W /dev/shm' ;;
		exec)
			_arguments '(- *)--help[print the options]' \
				'--policy[its name]:policy' \
				'*--cost[what it costs]:cost' \
				'*--by[whose call it is]:scope' \
				'--prio[its priority in line]:priority' \
				'--wait[how long to wait at most]:duration' \
				'*--ok[an exit status that is no failure]:status' \
				'--anyway[run without a permit when there is no worker]' \
				'--addr[where the worker is]:address' \
				'--user[log in with this name]:name' \
				'*::command:_normal' ;;
		pace)
			_arguments '(- *)--help[print the options]' \
				'--bytes[a line costs its bytes]' \
				'--quiet[say nothing]' \
				'1:limit' ;;
		sim)
			_arguments '(- *)--help[print the options]' \
				'--experiment[against what]:name:(policer md1 erlang aws-jitter retry-budget metastable adaptive windows all)' \
				'--seed[other chances]:number' \
				'--svg[draw how it went]:file:_files' \
				'--csv[the same as numbers]:file:_files' \
				'*--assert[what has to hold]:expression' \
				'--against[another policy]:policy:_files -g "*.lua"' \
				'--processes[runs at once]:count' \
				'--plot[draw on standard output]' \
				'--verbose[print what hooks log]' \
				'1:policy:_files -g "*.lua"' '2:scenario:_files -g "*.lua"' ;;
		repl)
			_arguments '(- *)--help[print the options]' \
				'--virtual[time stands until it is told to move]' \
				'--command[run this entry and end]:lua' \
				'1:policy:_files -g "*.lua"' ;;
		console)
			_arguments '(- *)--help[print the options]' \
				'--user[log in with this name]:name' \
				'--command[run this entry and end]:lua' \
				'1:address' ;;
		help) _describe verb verbs ;;
		esac ;;
	esac
}

_neap "$@"
