`default_nettype none

// Coordinates of the ROWS pixels of a pixel tile, without a multiplier or divider.
//
// Row r holds the input coordinates that tap (0, 0) of its pixel reads,
//   y = oy * stride_y - pad_top,  x = ox * stride_x - pad_left,
// where (oy, ox) = divmod(tile * ROWS + r, pitch) (rule M1). The next tile is ROWS pixels further:
//   x + cfg_step_x, y + cfg_step_y, and where x passes the pitch one output row further,
//   x - cfg_wrap_x, y + cfg_row_y.
// `load` goes to the start coordinates, `advance` one tile on; both take effect at the clock edge
// and `load` wins.
//
//   port          value
//   cfg_start_y   per row, of the first tile of the run
//   cfg_start_x   per row, of the first tile of the run
//   cfg_step_y    (ROWS div pitch) * stride_y
//   cfg_step_x    (ROWS mod pitch) * stride_x
//   cfg_row_y     stride_y
//   cfg_wrap_x    pitch * stride_x
//   cfg_pitch_x   pitch * stride_x - pad_left: the first x beyond the pitch
//   cfg_end_y     output height * stride_y - pad_top: the first y beyond the last row
//   cfg_end_x     output width * stride_x - pad_left: the first x beyond the row
module pixel_walker #(
    parameter integer ROWS    = 1,
    parameter integer COORD_W = 20  // coordinates, signed
) (
    input wire clk,

    // configuration
    input wire        [ROWS*COORD_W-1:0] cfg_start_y,
    input wire        [ROWS*COORD_W-1:0] cfg_start_x,
    input wire signed [     COORD_W-1:0] cfg_step_y,
    input wire signed [     COORD_W-1:0] cfg_step_x,
    input wire signed [     COORD_W-1:0] cfg_row_y,
    input wire signed [     COORD_W-1:0] cfg_wrap_x,
    input wire signed [     COORD_W-1:0] cfg_pitch_x,
    input wire signed [     COORD_W-1:0] cfg_end_y,
    input wire signed [     COORD_W-1:0] cfg_end_x,

    input wire load,
    input wire advance,

    // coordinates, and whether the row's pixel exists
    output wire [ROWS*COORD_W-1:0] y,
    output wire [ROWS*COORD_W-1:0] x,
    output wire [        ROWS-1:0] exists
);
  genvar row;
  generate
    for (row = 0; row < ROWS; row = row + 1) begin : g_row
      logic signed [COORD_W-1:0] y_q, x_q;
      wire signed [COORD_W-1:0] far_x = x_q + cfg_step_x;
      wire wraps = far_x >= cfg_pitch_x;

      assign y[row*COORD_W+:COORD_W] = y_q;
      assign x[row*COORD_W+:COORD_W] = x_q;
      assign exists[row] = y_q < cfg_end_y && x_q < cfg_end_x;

      always_ff @(posedge clk) begin
        if (load) begin
          y_q <= cfg_start_y[row*COORD_W+:COORD_W];
          x_q <= cfg_start_x[row*COORD_W+:COORD_W];
        end else if (advance) begin
          y_q <= y_q + cfg_step_y + (wraps ? cfg_row_y : '0);
          x_q <= wraps ? far_x - cfg_wrap_x : far_x;
        end
      end
    end
  endgenerate
endmodule

`default_nettype wire
