/* SPDX-License-Identifier: MIT */
/* pages.h - memory that is given back in pieces. Private to the core; pages.c has the essay. */
#ifndef NEAP_PAGES_H
#define NEAP_PAGES_H

#include <stddef.h>

/* Zeroes, from a cache line's boundary on. NULL: there is no memory. */
void *neap_pages_open(size_t size);
/* Give back what lies before 'to', of which 'from' bytes are gone: at most a piece, and of a last
 * piece all or nothing. Answers how many bytes are gone now. */
size_t neap_pages_give(void *memory, size_t size, size_t from, size_t to);
/* Give back all the rest. */
void neap_pages_close(void *memory, size_t size, size_t from);

#endif
