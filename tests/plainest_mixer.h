/* plainest_mixer.h - every system with as few keys as it takes: its defaults alone, where it has any. */
#ifndef MN_PLAINEST_MIXER_H
#define MN_PLAINEST_MIXER_H

#include <stdio.h>
#include <string.h>

enum { MN_PLAINEST = 128 };

static inline const char *mn_plainest_mixer(char json[MN_PLAINEST], const char *type) {
  const char *more = strcmp(type, "parallel") ? "" : ", \"mixers\": [{\"type\": \"attention\"}, {\"type\": \"mamba2\"}]";
  snprintf(json, MN_PLAINEST, "{\"type\": \"%s\"%s}", type, more);
  return json;
}

#endif
