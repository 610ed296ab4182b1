`default_nettype none
// Operand window of the array (registers n and word of section 4; rules A3, A4).
//
//   n' = n - release + load             load = feed_valid and feed_ready
//   feed_ready = n - release < DEPTH
//
// Word 0 is the oldest. A release shifts the words down by one; a load goes to position n - release and
// can be picked in the next cycle. Latency: 1 cycle from load to `words`; one word a cycle, even with
// DEPTH = 1. Reset: synchronous, everything 0; `flush` empties the window and keeps the words.
//
//   clk, rst, flush  in
//   feed_valid       in   1
//   feed_ready       out  1               combinational in `release_word`
//   feed_data        in   WORD_W
//   release_word     in   1               word 0 is no longer needed (implies n > 0)
//   n                out  clog2(DEPTH+1)  words held
//   words            out  DEPTH*WORD_W    word d at [d*WORD_W +: WORD_W]
module array_window #(
  parameter integer WORD_W = 9,
  parameter integer DEPTH = 1,
  localparam integer N_W = $clog2(DEPTH + 1)
) (
  input  wire                    clk,
  input  wire                    rst,
  input  wire                    flush,
  input  wire                    feed_valid,
  output wire                    feed_ready,
  input  wire [WORD_W-1:0]       feed_data,
  input  wire                    release_word,
  output wire [N_W-1:0]          n,
  output wire [DEPTH*WORD_W-1:0] words
);

`ifndef SYNTHESIS
  initial if (DEPTH < 1) $fatal(1, "%m: DEPTH must be at least 1, not %0d", DEPTH);
`endif

  logic [N_W-1:0] n_q;

  wire [N_W-1:0] kept = n_q - N_W'(release_word);
  assign feed_ready = kept < N_W'(DEPTH);
  wire load = feed_valid && feed_ready;
  wire [N_W-1:0] n_d = flush ? '0 : kept + N_W'(load);

  always_ff @(posedge clk) begin
    if (rst) n_q <= '0;
    else n_q <= n_d;
  end

  genvar d;
  generate
    for (d = 0; d < DEPTH; d = d + 1) begin : g_word
      logic [WORD_W-1:0] word_q;
      wire  [WORD_W-1:0] older;
      if (d + 1 < DEPTH) begin : g_shift
        assign older = g_word[d+1].word_q;
      end else begin : g_last
        assign older = word_q;
      end
      wire [WORD_W-1:0] word_d =
          (load && kept == N_W'(d)) ? feed_data : release_word ? older : word_q;

      always_ff @(posedge clk) begin
        if (rst) word_q <= '0;
        else word_q <= word_d;
      end

      assign words[d*WORD_W+:WORD_W] = word_q;
    end
  endgenerate

  assign n = n_q;

endmodule
`default_nettype wire
