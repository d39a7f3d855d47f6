/* bench_stream.h - `mneme bench stream`: what a stream costs: a token, a segment and one less, going back, and a copy. */
#ifndef MN_BENCH_STREAM_H
#define MN_BENCH_STREAM_H

#include "cli/cli.h"

mn_status mn_bench_stream(mn_cli *cli);

#endif
