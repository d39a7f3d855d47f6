/* settings.c - see settings.h. */
#include "api/settings.h"
#include "base/threads.h"

int mn_settings_count(const char *const *settings) {
  int n = 0;
  while (settings && settings[n]) n++;
  return n;
}

mn_status mn_threads_check(const char *who, int threads) {
  if (threads >= 0 && threads <= MN_THREADS_MOST) return MN_OK;
  return mn_fail(MN_ERR_ARG, "%s: threads is %d; it must be from 1 to %d, or 0", who, threads, MN_THREADS_MOST);
}

mn_status mn_settings_read(const char *const *settings, const mn_field *fields, void *out) {
  mn_arena *arena = mn_arena_new();
  const mn_value *map = arena ? mn_value_map(arena, 0, NULL, NULL) : NULL;
  mn_status status = map ? MN_OK : MN_ERR_MEMORY;
  for (int i = 0; status == MN_OK && i < mn_settings_count(settings); i++)
    status = mn_value_set_by(arena, map, "setting", settings[i], &map);
  if (status == MN_OK) status = mn_config_read(arena, map, NULL, fields, out);
  mn_arena_free(arena);
  return status;
}
