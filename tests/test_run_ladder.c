/* What must be true of the ladder of lengths: any number of tokens is fed, in few segments; what a form is told about where its
 * rows stand is true; a stream that stands anywhere comes to the model's alignment and stays there. */
#include "run/ladder.h"
#include "test.h"

static int segments(int64_t longest, int64_t alignment, int64_t at, int64_t n, bool *truthful, int64_t *longest_used) {
  int count = 0;
  *longest_used = 0;
  while (n > 0 && count < 100000) {
    mn_rung r = mn_ladder_next(longest, alignment, 1, &at, n, false);
    if (r.length < 1 || r.length > n || r.length > longest || r.multiple < 1 || at % r.multiple) *truthful = false;
    if (r.length > *longest_used) *longest_used = r.length;
    at += r.length;
    n -= r.length;
    count++;
  }
  return count;
}

static void any_text_takes_few_segments(void) {
  bool truthful = true;
  int64_t top;
  CHECK(segments(256, 1, 0, 256, &truthful, &top) == 1, "a whole segment");
  CHECK(segments(256, 1, 0, 255, &truthful, &top) == 8, "one less than it: its binary digits");
  CHECK(segments(256, 1, 7, 1024, &truthful, &top) == 4, "where nobody looks at positions, any will do");
  CHECK(segments(100, 1, 0, 199, &truthful, &top) == 1 + 4, "100, 64, 32, 2, 1");
  CHECK(segments(1, 1, 3, 5, &truthful, &top) == 5, "one by one");
  for (int64_t longest = 1; longest <= 300; longest += 13)
    for (int64_t alignment = 1; alignment <= 512; alignment = alignment * 2 + (alignment == 16))
      for (int64_t at = 0; at < 70; at += 23)
        for (int64_t n = 1; n < 700; n += 41) {
          int count = segments(longest, alignment, at, n, &truthful, &top);
          CHECK(count <= n / (longest > alignment ? longest - longest % alignment : 1) + 24 || longest < 24,
                "%lld tokens at %lld, up to %lld, alignment %lld: %d segments", (long long)n, (long long)at, (long long)longest,
                (long long)alignment, count);
        }
  CHECK(truthful, "a form was told what is not so, or given what does not fit");
}

static void a_stream_comes_to_the_alignment_and_stays(void) {
  int64_t at = 1001, n = 2000;
  int before = 0;
  while (n >= 256) {
    mn_rung r = mn_ladder_next(256, 64, 1, &at, n, false);
    if (r.length < 256) before++;
    else CHECK(r.multiple == 64, "a long segment at %lld is told %lld", (long long)at, (long long)r.multiple);
    at += r.length;
    n -= r.length;
  }
  CHECK(before == 4, "1001 to 1024 takes 1, 2, 4, 16: %d", before);
  int64_t where[2] = {128, 192};
  CHECK(mn_ladder_next(256, 64, 2, where, 256, false).multiple == 64, "rows that stand a whole alignment apart");
  where[1] = 200;
  mn_rung r = mn_ladder_next(256, 64, 2, where, 256, false);
  CHECK(r.length == 256 && r.multiple == 8, "rows eight apart: %lld, %lld", (long long)r.length, (long long)r.multiple);
  where[1] = 201;
  r = mn_ladder_next(256, 64, 2, where, 256, false);
  CHECK(r.length == 256 && r.multiple == 1, "rows that never meet are not kept short");
  at = 0;
  CHECK(mn_ladder_next(100, 48, 1, &at, 100, false).length == 96, "the longest segment is a whole number of alignments");
  CHECK(mn_ladder_next(100, 256, 1, &at, 100, false).length == 64, "or divides one");
}

/* What is left of a text goes in one padded segment where that costs less than several whole ones. */
static void the_end_of_a_text_is_padded(void) {
  const int64_t start = 0;
  mn_rung r = mn_ladder_next(256, 1, 1, &start, 255, true);
  CHECK(r.length == 256 && r.counts == 255, "255 tokens are a segment of 256: %lld", (long long)r.length);
  r = mn_ladder_next(256, 1, 1, &start, 129, true);
  CHECK(r.length == 128 && r.counts == 128, "129 are not: %lld", (long long)r.length);
  r = mn_ladder_next(256, 1, 1, &start, 1, true);
  CHECK(r.length == 1 && r.counts == 1, "one is one");
  for (int64_t longest = 1; longest < 300; longest += 23)
    for (int64_t alignment = 1; alignment < 400; alignment = alignment * 3 + 1)
      for (int64_t at = 0; at < 50; at += 7)
        for (int64_t n = 1; n < 600; n += 13) {
          int64_t here = at, left = n, fed = 0;
          for (int k = 0; left > 0 && k < 10000; k++) {
            r = mn_ladder_next(longest, alignment, 1, &here, left, true);
            if (r.counts < 1 || r.counts > left || r.counts > r.length || r.length > longest || here % r.multiple) break;
            here += r.counts, left -= r.counts, fed += r.length;
          }
          CHECK(left == 0 && fed < 2 * n + 16, "%lld tokens at %lld, up to %lld, alignment %lld: %lld left, %lld fed", (long long)n,
                (long long)at, (long long)longest, (long long)alignment, (long long)left, (long long)fed);
        }
}

static void the_lengths_are_listed(void) {
  static const int64_t all[] = {256, 128, 64, 32, 16, 8, 4, 2, 1};
  int64_t length;
  for (int i = 0; i < 9; i++) CHECK(mn_ladder_length(256, 1, i, &length) && length == all[i], "%d: %lld", i, (long long)length);
  CHECK(!mn_ladder_length(256, 1, 9, &length), "no more");
  CHECK(mn_ladder_length(256, 48, 0, &length) && length == 240, "%lld", (long long)length);
  CHECK(mn_ladder_length(256, 48, 1, &length) && length == 192, "%lld", (long long)length);
  CHECK(mn_ladder_length(256, 48, 3, &length) && length == 48, "%lld", (long long)length);
  CHECK(mn_ladder_length(256, 48, 4, &length) && length == 32, "%lld", (long long)length);
}

int main(void) {
  RUN(any_text_takes_few_segments);
  RUN(a_stream_comes_to_the_alignment_and_stays);
  RUN(the_end_of_a_text_is_padded);
  RUN(the_lengths_are_listed);
  return test_end();
}
