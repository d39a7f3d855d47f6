/* nearest.c - optimal string alignment distance (Damerau 1964, restricted to non-overlapping swaps) over short names. */
#include "base/nearest.h"

#include <ctype.h>
#include <limits.h>
#include <string.h>

enum { LONGEST = 63 };

static int fold(const char *s, char *out) {
  int n = 0;
  for (; *s && n < LONGEST; s++) out[n++] = (char)(*s == '-' ? '_' : tolower((unsigned char)*s));
  out[n] = 0;
  return n;
}

static int min2(int a, int b) { return a < b ? a : b; }

static int distance(const char *a, int na, const char *b, int nb) {
  int row[3][LONGEST + 2]; /* rows i-2, i-1, i of the dynamic programme, by i modulo 3 */
  for (int j = 0; j <= nb; j++) row[0][j] = j;
  for (int i = 1; i <= na; i++) {
    int *now = row[i % 3], *last = row[(i + 2) % 3], *before = row[(i + 1) % 3];
    now[0] = i;
    for (int j = 1; j <= nb; j++) {
      now[j] = min2(min2(last[j], now[j - 1]) + 1, last[j - 1] + (a[i - 1] != b[j - 1]));
      if (i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1]) now[j] = min2(now[j], before[j - 2] + 1);
    }
  }
  return row[na % 3][nb];
}

const char *mn_nearest(const char *word, const char *const *names, int n) {
  char a[LONGEST + 1], b[LONGEST + 1];
  int na = fold(word, a), best = INT_MAX;
  const char *found = NULL;
  if (na == 0) return NULL;
  for (int i = 0; i < n; i++) {
    int nb = fold(names[i], b);
    int d = distance(a, na, b, nb), longest = na > nb ? na : nb;
    if (na >= 3 && na < nb && !strncmp(a, b, (size_t)na)) d = min2(d, 1); /* an abbreviation */
    int allowed = longest <= 2 ? na > 1 : longest <= 4 ? 1 : longest <= 8 ? 2 : longest / 3;
    if (d <= allowed && d < best) best = d, found = names[i];
  }
  return found;
}
