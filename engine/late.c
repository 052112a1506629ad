/* SPDX-License-Identifier: MIT */
/* late.c - when the whole process stood still.
 *
 * A waiter is granted at the instant his token came, not when the loop got round to it (turn.c): so
 * a limit keeps its rate under a loop that is late by microseconds. But grants that are dated back
 * leave now. After a SIGSTOP, a suspended machine or a frozen container of ten seconds all that fell
 * due meanwhile would leave in one moment, and the other side counts what arrives, not what we meant:
 *
 *      tokens      | | | | | | | | | |              stopped
 *      dated back  |                 ||||||||||     ten at once, burst or not
 *      late_ns     |                 ||  | | |      the burst, and on from there
 *
 * So lateness has a bound. Beyond it what was missed is missed, as it is for one who had not waited:
 * time jumps, deadlines that passed are over, and heads are asked at 'now'. Below it at most
 * rate x late_ns leave beyond the burst.
 *
 * Sleepers (leases among them) that came due meanwhile have 'grace_ns' more. Their owners could reach
 * nobody; what they sent meanwhile is read first.
 *
 * It walks all waiters once, which nobody notices who has just been away for that long.
 */
#include "engine.h"
#include "wheel.h"

#include <assert.h>

void neap_engine_late(struct neap_engine *e, neap_ns late_ns, neap_ns grace_ns)
{
	assert(late_ns >= 0 && grace_ns > 0 && grace_ns < neap_horizon);
	e->late_ns = late_ns;
	e->grace_ns = grace_ns;
}

void neap_late_jump(struct neap_engine *e, neap_ns now)
{
	e->at = now;
	for (uint32_t name = 1; name <= e->untouched; name++) {
		struct neap_waiter *w = waiter(e, name);
		if (w->deadline > now)
			continue;
		if (w->state == WAITING) {
			neap_turn_leave(e, name, NEAP_TIMEOUT);
		} else if (w->state == SLEEPING) {
			w->deadline = now + e->grace_ns;
			neap_wheel_set(e->wheel, name - 1, w->deadline);
		}
	}
	e->stats.jumps++;
	neap_turn_settle(e);
}
