/* SPDX-License-Identifier: MIT */
/* world.c - limiters and alls over them, thrown with dice. */
#include "queue.h"
#include "trial.h"

#include <string.h>

static void any_limiter(struct dice *d, struct world *w, int i)
{
	struct neap_limiter *l = &w->limiter[i];
	struct neap_strategy strategy;
	l->kind = (int32_t)(dice_between(d, 0, 2) ? dice_between(d, 1, 2) : dice_between(d, 1, 5));
	if (l->kind == NEAP_BREAKER)   /* has waiting tests of its own */
		l->kind = NEAP_ADAPTIVE;
	switch (l->kind) {
	case NEAP_GCRA:
		neap_gcra_init(&l->as.gcra, dice_between(d, 1, 3), dice_any_size(d, 1, 5000),
			       dice_between(d, 1, 4));
		break;
	case NEAP_SEMAPHORE:
		neap_semaphore_init(&l->as.semaphore, dice_between(d, 1, 4), dice_between(d, 0, 4) == 0);
		break;
	case NEAP_WINDOW:
		neap_window_init(&l->as.window, dice_between(d, 1, 4), dice_any_size(d, 1, 3000), w->log[i],
				 (uint32_t)dice_between(d, 1, QUEUE_LOG));
		break;
	case NEAP_PAUSE:
		neap_pause_init(&l->as.pause);
		break;
	case NEAP_ADAPTIVE:
		neap_strategy_init(&strategy, (int)dice_between(d, NEAP_AIMD, NEAP_GRADIENT));
		strategy.increase = dice_between(d, 1, 3);
		strategy.options = (uint32_t)dice_between(d, 0, NEAP_ONE_CUT | NEAP_GROW_WHEN_USED);
		neap_adaptive_init(&l->as.adaptive, &strategy, 1, dice_between(d, 1, 12),
				   dice_between(d, 1, 4));
	}
}

void world_any(struct dice *d, struct world *w)
{
	memset(w, 0, sizeof *w);
	for (int i = 0; i < QUEUE_LIMITERS; i++)
		any_limiter(d, w, i);
	for (int a = 0; a < QUEUE_ALLS; a++) {
		int first = (int)dice_between(d, 0, QUEUE_LIMITERS - 1), count = 0;
		int limiters = (int)dice_between(d, 1, 3);
		for (int i = 0; i < limiters && count < QUEUE_TERMS; i++) {
			struct neap_limiter *l = &w->limiter[(first + i) % QUEUE_LIMITERS];
			int32_t cost = (int32_t)dice_between(d, 0, QUEUE_COSTS - 1);
			w->term[a][count++] = (struct neap_term){l, 1, cost, 0};
			if (count < QUEUE_TERMS && !dice_between(d, 0, 5))
				w->term[a][count++] = (struct neap_term){l, 2, 0, 0};
		}
		w->all[a] = (struct neap_all){w->term[a], count, 0, NULL};
	}
}

void world_busy(struct dice *d, struct world *w)
{
	memset(w, 0, sizeof *w);
	for (int i = 0; i < QUEUE_LIMITERS; i++) {
		struct neap_limiter *l = &w->limiter[i];
		l->kind = dice_between(d, 0, 2) ? NEAP_GCRA : NEAP_SEMAPHORE;
		if (l->kind == NEAP_GCRA)
			neap_gcra_init(&l->as.gcra, 1, dice_any_size(d, 20, 500), dice_between(d, 1, 3));
		else
			neap_semaphore_init(&l->as.semaphore, dice_between(d, 1, 3), 0);
	}
	for (int a = 0; a < QUEUE_ALLS; a++) {
		for (int i = 0; i < QUEUE_COSTS; i++)
			w->term[a][i] = (struct neap_term){&w->limiter[(a + i) % 4], 1, i, 0};
		w->all[a] = (struct neap_all){w->term[a], QUEUE_COSTS, 0, NULL};
	}
}

void world_copy(struct world *to, const struct world *from)
{
	memcpy(to, from, sizeof *to);
	for (int i = 0; i < QUEUE_LIMITERS; i++)
		if (to->limiter[i].kind == NEAP_WINDOW)
			to->limiter[i].as.window.log = to->log[i];
	for (int a = 0; a < QUEUE_ALLS; a++) {
		to->all[a].terms = to->term[a];
		for (int t = 0; t < to->all[a].count; t++)
			to->term[a][t].limiter = &to->limiter[from->term[a][t].limiter - from->limiter];
	}
}

int world_same(const struct world *a, const struct world *b)
{
	struct world c;
	world_copy(&c, b);
	for (int i = 0; i < QUEUE_LIMITERS; i++)
		if (c.limiter[i].kind == NEAP_WINDOW)
			c.limiter[i].as.window.log = a->limiter[i].as.window.log;
	return !memcmp(a->limiter, c.limiter, sizeof c.limiter) && !memcmp(a->log, c.log, sizeof c.log);
}
