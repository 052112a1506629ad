# Completion of neap's command line for bash.

_neap_options() { # VERB
	case $1 in
	run) echo --listen --http --drain --log --log-format --verbose --virtual-clock --watch --state --save-every --help ;;
	check) echo --print --diff --quiet --strict --help ;;
	inspect) echo --json --help ;;
	top) echo --every --rounds --help ;;
	exec) echo --policy --cost --by --prio --wait --ok --anyway --addr --user --help ;;
	pace) echo --bytes --quiet --help ;;
	sim) echo --experiment --seed --svg --csv --assert --against --processes --plot --verbose --help ;;
	repl) echo --virtual --command --help ;;
	console) echo --user --command --help ;;
	esac
}

_neap() {
	local word=${COMP_WORDS[COMP_CWORD]} before=${COMP_WORDS[COMP_CWORD - 1]} i
	local verbs="run check inspect top exec pace sim repl console help"
	COMPREPLY=()
	if ((COMP_CWORD == 1)); then
		mapfile -t COMPREPLY < <(compgen -W "$verbs --version --help" -- "$word")
		return
	fi
	local verb=${COMP_WORDS[1]}
	if [[ $verb == exec ]]; then   # behind -- stands another command
		for ((i = 2; i < COMP_CWORD; i++)); do
			[[ ${COMP_WORDS[i]} == -- ]] || continue
			if declare -F _command_offset >/dev/null; then
				_command_offset $((i + 1))
			elif ((COMP_CWORD == i + 1)); then
				mapfile -t COMPREPLY < <(compgen -c -- "$word")
			else
				mapfile -t COMPREPLY < <(compgen -f -- "$word")
			fi
			return
		done
	fi
	case $verb$before in
	help*)
		mapfile -t COMPREPLY < <(compgen -W "$verbs" -- "$word")
		return ;;
	check--print)
		mapfile -t COMPREPLY < <(compgen -W "table json" -- "$word")
		return ;;
	sim--experiment)
		mapfile -t COMPREPLY < <(compgen -W "policer md1 erlang aws-jitter retry-budget \
			metastable adaptive windows all" -- "$word")
		return ;;
	run--log-format)
		mapfile -t COMPREPLY < <(compgen -W "text json" -- "$word")
		return ;;
	run--log | check--diff | sim--svg | sim--csv | sim--against)
		mapfile -t COMPREPLY < <(compgen -f -- "$word")
		return ;;
	run--listen | run--http | run--drain | top--every | top--rounds | exec--policy | exec--cost | \
	exec--by | exec--prio | exec--wait | exec--ok | exec--addr | exec--user | sim--seed | \
	sim--assert | sim--processes | repl--command | console--user | console--command)
		return ;;
	esac
	if [[ $word == -* ]]; then
		mapfile -t COMPREPLY < <(compgen -W "$(_neap_options "$verb")" -- "$word")
		return
	fi
	case $verb in
	run | check | sim | repl)
		mapfile -t COMPREPLY < <(compgen -f -X '!*.lua' -- "$word"; compgen -d -- "$word") ;;
	inspect | top)
		mapfile -t COMPREPLY < <(cd /dev/shm 2>/dev/null && compgen -f -- "$word") ;;
	esac
}

complete -o filenames -F _neap neap
