`default_nettype none

// Position in the parts of a tile: chunks of input channels outside, taps (row, column) inside.
//
// A direct convolution (cfg_winograd 0) has one part, F(2,3) (1) 16 and F(4,3) (2) 36 for each of
// cfg_chunks chunks. `load` goes to the first part, `advance` to the next one, after the last one to
// the first; both take effect at the clock edge and `load` wins.
//
// model: simulator.stepped; rule W4.
module part_counter #(
    parameter integer CHUNKS_W = 16
) (
    input wire clk,

    // configuration: chunks of a tile, at least 1
    input wire [         1:0] cfg_winograd,
    input wire [CHUNKS_W-1:0] cfg_chunks,

    input wire load,
    input wire advance,

    output wire       first,
    output wire       last,
    output wire [2:0] tap_row,
    output wire [2:0] tap_column
);
  logic [2:0] row_q, column_q;
  logic [CHUNKS_W-1:0] chunk_q;
  wire direct = cfg_winograd == 2'd0;
  wire [2:0] last_tap = cfg_winograd[1] ? 3'd5 : 3'd3;
  wire row_end = column_q == last_tap;
  wire patch_end = row_end && row_q == last_tap;

  assign {tap_row, tap_column} = {row_q, column_q};
  assign first = direct || {chunk_q, row_q, column_q} == '0;
  assign last  = direct || patch_end && chunk_q == cfg_chunks - 1'b1;

  always_ff @(posedge clk) begin
    if (load || advance && last) begin
      row_q    <= '0;
      column_q <= '0;
      chunk_q  <= '0;
    end else if (advance) begin
      column_q <= row_end ? '0 : column_q + 1'b1;
      if (row_end) row_q <= patch_end ? '0 : row_q + 1'b1;
      if (patch_end) chunk_q <= chunk_q + 1'b1;
    end
  end
endmodule

`default_nettype wire
