/* SPDX-License-Identifier: MIT */
/* agenda.c - timers without any order kept: the first is found by looking at all of them. */
#include "agenda.h"

#include <stdlib.h>

void agenda_open(struct agenda *a, uint32_t capacity)
{
	a->due = malloc(capacity * sizeof *a->due);
	if (!a->due)
		abort();
	a->capacity = capacity;
	a->count = 0;
	for (uint32_t id = 0; id < capacity; id++)
		a->due[id] = neap_never;
}

void agenda_close(struct agenda *a) { free(a->due); }

void agenda_set(struct agenda *a, uint32_t id, neap_ns due)
{
	a->count += a->due[id] == neap_never;
	a->due[id] = due < neap_horizon ? due : neap_horizon;
}

void agenda_cancel(struct agenda *a, uint32_t id)
{
	a->count -= a->due[id] != neap_never;
	a->due[id] = neap_never;
}

int64_t agenda_first(const struct agenda *a)
{
	int64_t first = -1;
	for (uint32_t id = 0; id < a->capacity; id++)
		if (a->due[id] != neap_never && (first < 0 || a->due[id] < a->due[first]))
			first = id;
	return first;
}
