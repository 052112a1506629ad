/* SPDX-License-Identifier: MIT */
/* agenda.h - the oracle of wheel: a due instant for each timer, looked through from end to end. */
#ifndef AGENDA_H
#define AGENDA_H

#include "neap.h"

struct agenda {
	neap_ns *due;        /* [capacity], neap_never: not set */
	uint32_t capacity, count;
};

void agenda_open(struct agenda *a, uint32_t capacity);
void agenda_close(struct agenda *a);
void agenda_set(struct agenda *a, uint32_t id, neap_ns due);
void agenda_cancel(struct agenda *a, uint32_t id);
/* The timer that is due first, the lower of two that are due together; -1 when none is set. */
int64_t agenda_first(const struct agenda *a);

#endif
