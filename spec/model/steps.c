/* SPDX-License-Identifier: MIT */
/* steps.c - threads that take turns, one atomic operation at a time, in every order there is.
 *
 * Between two atomic operations on shared words a thread does nothing that another could see, so
 * it is enough to decide before each of them who goes next. Threads are coroutines here. An order
 * is the list of those decisions. To find the next one, the last decision that had another choice
 * left is changed and what follows is made anew: a walk through the tree of orders, depth first,
 * with no memory but one path.
 *
 *     A load   A swap   B load  ...      decision  0 0 1 ...     of    2 2 2 ...
 *
 * Orders are many, and most mistakes need few changes of thread (Musuvathi and Qadeer 2007): so
 * a thread goes on until it is done, except 'switches' times.
 */
#include "steps.h"

#include <stdlib.h>
#include <ucontext.h>

enum { STACK = 65536, DECISIONS = 4096 };

static struct {
	ucontext_t scheduler, thread[STEPS_THREADS];
	char stack[STEPS_THREADS][STACK];
	int done[STEPS_THREADS], threads, running;
	void (*body)(int thread);
	struct { int choice, of; } decision[DECISIONS];
	int decisions, depth;
} steps;

static void stop(void)
{
	if (steps.running >= 0)
		swapcontext(&steps.thread[steps.running], &steps.scheduler);
}

int64_t steps_load(const int64_t *word)
{
	stop();
	return *word;
}

void steps_store(int64_t *word, int64_t value)
{
	stop();
	*word = value;
}

int steps_swap(int64_t *word, int64_t *from, int64_t to)
{
	stop();
	if (*word != *from) {
		*from = *word;
		return 0;
	}
	*word = to;
	return 1;
}

int64_t steps_sub(int64_t *word, int64_t by)
{
	stop();
	*word -= by;
	return *word + by;
}

static void run(void)
{
	int me = steps.running;
	steps.body(me);
	steps.done[me] = 1;
}

static int decide(int of)
{
	if (steps.depth == DECISIONS)
		abort();
	if (steps.depth == steps.decisions) {
		steps.decision[steps.decisions].choice = 0;
		steps.decision[steps.decisions++].of = of;
	}
	return steps.decision[steps.depth++].choice;
}

/* The next to run: choice 0 is to go on with 'last', if that is not done. */
static int choose(int last, int switches)
{
	int able[STEPS_THREADS], count = 0, goes_on = last >= 0 && !steps.done[last];
	if (goes_on)
		able[count++] = last;
	for (int i = 0; i < steps.threads; i++)
		if (!steps.done[i] && !(goes_on && i == last))
			able[count++] = i;
	if (count == 0)
		return -1;
	return able[goes_on && !switches ? 0 : decide(count)];
}

static void line_up(int i)
{
	getcontext(&steps.thread[i]);
	steps.thread[i].uc_stack.ss_sp = steps.stack[i];
	steps.thread[i].uc_stack.ss_size = STACK;
	steps.thread[i].uc_link = &steps.scheduler;
	makecontext(&steps.thread[i], run, 0);
	steps.done[i] = 0;
}

static void one_order(int switches)
{
	for (int i = 0; i < steps.threads; i++)
		line_up(i);
	steps.depth = 0;
	for (int last = -1, next; (next = choose(last, switches)) >= 0; last = next) {
		switches -= last >= 0 && next != last && !steps.done[last];
		steps.running = next;
		swapcontext(&steps.scheduler, &steps.thread[next]);
	}
	steps.running = -1;
}

int64_t steps_every_order(int threads, int switches, int64_t orders, void (*begin)(void),
			  void (*body)(int thread), void (*end)(void))
{
	int64_t count = 0;
	steps.threads = threads;
	steps.body = body;
	steps.decisions = 0;
	do {
		steps.running = -1;
		begin();
		one_order(switches);
		end();
		count++;
		while (steps.decisions) {
			int last = steps.decisions - 1;
			if (++steps.decision[last].choice < steps.decision[last].of)
				break;
			steps.decisions--;
		}
	} while (steps.decisions && count < orders);
	return count;
}
