/* door.h - files, recipes and settings write numbers with a point. The program that uses the library may have set a locale whose numbers
 * have a comma; a function of the public interface that can fail says MN_DOOR first, and its thread writes and reads numbers with a point
 * until it returns. Nothing else of the locale changes. */
#ifndef MN_API_DOOR_H
#define MN_API_DOOR_H

#include "base/base.h"

#include <langinfo.h>
#include <locale.h>
#include <string.h>

typedef struct mn_door { /* what the thread had outside; both 0: it stays as it is */
  locale_t outside, inside;
} mn_door;

static inline mn_door mn_door_enter(void) {
  mn_door d = {0};
  if (!strcmp(nl_langinfo(RADIXCHAR), ".")) return d;
  locale_t all = duplocale(uselocale((locale_t)0));
  if (!all) return d;
  if (!(d.inside = newlocale(LC_NUMERIC_MASK, "C", all))) freelocale(all);
  else d.outside = uselocale(d.inside);
  return d;
}

static inline void mn_door_leave(const mn_door *d) {
  if (!d->inside) return;
  uselocale(d->outside);
  freelocale(d->inside);
}

/* A handle that is NULL is refused by the name of the function. */
#define MN_NEED(handle)                                                                                                                    \
  do {                                                                                                                                     \
    if (!(handle)) return mn_fail(MN_ERR_ARG, "%s: " #handle " is NULL", __func__);                                                        \
  } while (0)

#define MN_DOOR __attribute__((cleanup(mn_door_leave), unused)) const mn_door door = mn_door_enter()

#endif
