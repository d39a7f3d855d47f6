/* settings.h - mneme.h's settings: "key=value" texts into a struct that a field table describes. */
#ifndef MN_SETTINGS_H
#define MN_SETTINGS_H

#include "format/config.h"

int mn_settings_count(const char *const *settings); /* NULL: 0 */
/* How many threads a handle may be opened with: as --threads and the recipe's key. 0: a default of `who`'s. */
mn_status mn_threads_check(const char *who, int threads);
/* Defaults, then the settings. The struct must not hold texts or lists. */
mn_status mn_settings_read(const char *const *settings, const mn_field *fields, void *out);

#endif
