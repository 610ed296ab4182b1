`default_nettype none
// Sequencer of one column of the array (registers offset and done of section 4; rules A1 to A3, A5, S1).
//
//   issue = entry_valid and entry_ready,  entry_ready = offset < n and not done
//   offset' = offset + (issue ? advance : 0) - release,  done' = (done or issue of `last`) and not fire
//
// `offset` is the window word of the next entry; it may lie beyond the words loaded so far. Latency:
// combinational from entry to `issue`, 1 cycle to offset and done. Reset: synchronous, everything 0.
//
//   clk, rst, flush  in                     flush: offset and done become 0
//   n                in   clog2(DEPTH+1)    words in the window
//   release_word     in   1                 word 0 leaves the window (implies `passed`)
//   fire             in   1                 the tile ends (implies `finished`)
//   entry_valid      in   1
//   entry_ready      out  1                 does not depend on entry_valid
//   entry_last       in   1
//   entry_advance    in   ADV_W
//   issue            out  1
//   passed           out  1                 needs word 0 no more after this cycle's issue
//   finished         out  1                 done after this cycle's issue
//   offset           out  OFFSET_W
//   done             out  1                 done before it
module column_sequencer #(
  parameter integer DEPTH = 1,
  parameter integer ADV_W = 4,
  localparam integer N_W = $clog2(DEPTH + 1),
  // An entry at word DEPTH - 1 can advance by 2^ADV_W - 1.
  localparam integer OFFSET_W = $clog2(DEPTH + (1 << ADV_W) - 1)
) (
  input  wire                clk,
  input  wire                rst,
  input  wire                flush,
  input  wire [N_W-1:0]      n,
  input  wire                release_word,
  input  wire                fire,
  input  wire                entry_valid,
  output wire                entry_ready,
  input  wire                entry_last,
  input  wire [ADV_W-1:0]    entry_advance,
  output wire                issue,
  output wire                passed,
  output wire                finished,
  output wire [OFFSET_W-1:0] offset,
  output wire                done
);

  logic [OFFSET_W-1:0] offset_q;
  logic                done_q;

  assign entry_ready = offset_q < OFFSET_W'(n) && !done_q;
  assign issue = entry_valid && entry_ready;

  wire [OFFSET_W-1:0] moved = offset_q + (issue ? OFFSET_W'(entry_advance) : '0);
  assign passed = moved != '0;
  assign finished = done_q || (issue && entry_last);

  wire [OFFSET_W-1:0] offset_d = flush ? '0 : moved - OFFSET_W'(release_word);
  wire done_d = finished && !fire && !flush;

  always_ff @(posedge clk) begin
    if (rst) begin
      offset_q <= '0;
      done_q   <= 1'b0;
    end else begin
      offset_q <= offset_d;
      done_q   <= done_d;
    end
  end

  assign offset = offset_q;
  assign done = done_q;

endmodule
`default_nettype wire
