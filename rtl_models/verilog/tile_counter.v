`default_nettype none

// Position in the loop over tiles: channel tiles outside, pixel tiles inside (rule S5).
//
// `load` goes to the first tile, `advance` to the next one; both take effect at the clock edge and
// `load` wins. After the last tile the position is of no meaning until the next load.
//
// model: the tile loops of simulator.stepped
module tile_counter #(
    parameter integer TILE_W = 16  // tile counts
) (
    input wire clk,

    // configuration: tiles of the run, at least 1 each
    input wire [TILE_W-1:0] cfg_pixel_tiles,
    input wire [TILE_W-1:0] cfg_channel_tiles,

    input wire load,
    input wire advance,

    // the tile is the last pixel tile of its channel tile, is of the last channel tile
    output wire pixel_last,
    output wire channel_last
);
  logic [TILE_W-1:0] pixel_q, channel_q;

  assign pixel_last   = pixel_q == cfg_pixel_tiles - 1'b1;
  assign channel_last = channel_q == cfg_channel_tiles - 1'b1;

  always_ff @(posedge clk) begin
    if (load) begin
      pixel_q   <= '0;
      channel_q <= '0;
    end else if (advance) begin
      pixel_q <= pixel_last ? '0 : pixel_q + 1'b1;
      if (pixel_last) channel_q <= channel_q + 1'b1;
    end
  end
endmodule

`default_nettype wire
