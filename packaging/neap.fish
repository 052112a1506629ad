# Completion of neap's command line for fish.
complete -c neap -f
complete -c neap -n __fish_use_subcommand -l version -d 'Print the version'
complete -c neap -l help -d 'Print help'

complete -c neap -n __fish_use_subcommand -a run -d 'Serve the limits of a policy file'
complete -c neap -n __fish_use_subcommand -a check -d 'Tell all that is wrong with policy files'
complete -c neap -n __fish_use_subcommand -a inspect -d 'Look into limiters that processes share'
complete -c neap -n __fish_use_subcommand -a top -d 'The same, again and again'
complete -c neap -n __fish_use_subcommand -a exec -d 'Run a command under a permit'
complete -c neap -n __fish_use_subcommand -a pace -d 'Copy lines at the pace of a limit'
complete -c neap -n __fish_use_subcommand -a sim -d 'Run a policy in virtual time'
complete -c neap -n __fish_use_subcommand -a repl -d 'A prompt with a policy file'
complete -c neap -n __fish_use_subcommand -a console -d 'A prompt for a running worker'
complete -c neap -n __fish_use_subcommand -a help -d 'Explain a verb'
complete -c neap -n '__fish_seen_subcommand_from help' -a 'run check inspect top exec pace sim repl console'

complete -c neap -n '__fish_seen_subcommand_from run' -F
complete -c neap -n '__fish_seen_subcommand_from run' -l listen -x -d 'Where'
complete -c neap -n '__fish_seen_subcommand_from run' -l http -x -d 'Where to speak HTTP'
complete -c neap -n '__fish_seen_subcommand_from run' -l drain -x -d 'Time for what is held'
complete -c neap -n '__fish_seen_subcommand_from run' -l log -r -F -d 'Write the log there'
complete -c neap -n '__fish_seen_subcommand_from run' -l log-format -x -a 'text json'
complete -c neap -n '__fish_seen_subcommand_from run' -l verbose -d 'Log more'
complete -c neap -n '__fish_seen_subcommand_from run' -l state -r -d 'Keep there what is used and held'
complete -c neap -n '__fish_seen_subcommand_from run' -l save-every -x -d 'How often to write it'
complete -c neap -n '__fish_seen_subcommand_from run' -l watch -d 'Read the policy anew when it changes'
complete -c neap -n '__fish_seen_subcommand_from run' -l virtual-clock -d 'Time stands still'

complete -c neap -n '__fish_seen_subcommand_from check' -F
complete -c neap -n '__fish_seen_subcommand_from check' -l print -x -a 'table json'
complete -c neap -n '__fish_seen_subcommand_from check' -l diff -r -F -d 'Against that file'
complete -c neap -n '__fish_seen_subcommand_from check' -l quiet -d 'Print nothing of what is right'
complete -c neap -n '__fish_seen_subcommand_from check' -l strict -d 'Warnings are mistakes, too'

complete -c neap -n '__fish_seen_subcommand_from inspect' -F
complete -c neap -n '__fish_seen_subcommand_from inspect' -l json -d 'One line of JSON for each'

complete -c neap -n '__fish_seen_subcommand_from top' -F
complete -c neap -n '__fish_seen_subcommand_from top' -l every -x -d 'Time between two looks'
complete -c neap -n '__fish_seen_subcommand_from top' -l rounds -x -d 'So often, then end'

complete -c neap -n '__fish_seen_subcommand_from exec' -F
complete -c neap -n '__fish_seen_subcommand_from exec' -l policy -x -d 'Its name'
complete -c neap -n '__fish_seen_subcommand_from exec' -l cost -x -d 'What it costs'
complete -c neap -n '__fish_seen_subcommand_from exec' -l by -x -d 'Whose call it is'
complete -c neap -n '__fish_seen_subcommand_from exec' -l prio -x -d 'Its priority in line'
complete -c neap -n '__fish_seen_subcommand_from exec' -l wait -x -d 'How long at most'
complete -c neap -n '__fish_seen_subcommand_from exec' -l ok -x -d 'A status that is no failure'
complete -c neap -n '__fish_seen_subcommand_from exec' -l anyway -d 'Run without a worker'
complete -c neap -n '__fish_seen_subcommand_from exec' -l addr -x -d 'Where the worker is'
complete -c neap -n '__fish_seen_subcommand_from exec' -l user -x -d 'Log in with this name'

complete -c neap -n '__fish_seen_subcommand_from pace' -l bytes -d 'A line costs its bytes'
complete -c neap -n '__fish_seen_subcommand_from pace' -l quiet -d 'Say nothing'

complete -c neap -n '__fish_seen_subcommand_from sim' -l experiment -x -a 'policer md1 erlang aws-jitter retry-budget metastable adaptive windows all' -d 'Against what'
complete -c neap -n '__fish_seen_subcommand_from sim' -F
complete -c neap -n '__fish_seen_subcommand_from sim' -l svg -r -F -d 'Draw how it went'
complete -c neap -n '__fish_seen_subcommand_from sim' -l csv -r -F -d 'The same as numbers'
complete -c neap -n '__fish_seen_subcommand_from sim' -l assert -x -d 'What has to hold'
complete -c neap -n '__fish_seen_subcommand_from sim' -l against -r -F -d 'Another policy'
complete -c neap -n '__fish_seen_subcommand_from sim' -l processes -x -d 'Runs at once'
complete -c neap -n '__fish_seen_subcommand_from sim' -l plot -d 'Draw on standard output'
complete -c neap -n '__fish_seen_subcommand_from sim' -l verbose -d 'Print what hooks log'
complete -c neap -n '__fish_seen_subcommand_from sim' -l seed -x -d 'Other chances'

complete -c neap -n '__fish_seen_subcommand_from repl' -F
complete -c neap -n '__fish_seen_subcommand_from repl' -l virtual -d 'Time stands'
complete -c neap -n '__fish_seen_subcommand_from repl' -l command -x -d 'Run this entry'

complete -c neap -n '__fish_seen_subcommand_from console' -l user -x -d 'Log in with this name'
complete -c neap -n '__fish_seen_subcommand_from console' -l command -x -d 'Run this entry'
