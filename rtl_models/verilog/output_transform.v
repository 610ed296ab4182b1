`default_nettype none

// Winograd output transform: adds the products of each tap to the outputs of their tiles, divides.
//
// A result M read for tap (k, l) adds A^T[i][k] * A^T[j][l] * M to output (i, j) of its tile, all
// modulo 2^SUM_W; the m x m sums of each column and group of LANES rows wait in a memory. The
// result of the last tap and chunk makes them complete, and they are divided exactly by 4, or by
// 576 = 2^6 * 9: a shift by 2 or 6, then a product with the inverse of 9 modulo 2^(SUM_W - 6).
// Outputs that fit SUM_W - 2, or SUM_W - 6, signed bits are those of the direct convolution,
// whatever wrapped on the way.
//
//   cycle u          in_valid with in_result; the same in_addr at the earliest in cycle u + 2
//   cycle u + 3 + x  output x = i * m + j of a result with in_last; out_phase of cycle u + 2 + x
//                    is x (the next result with in_last comes m * m cycles later)
//
// Nothing waits. No reset: in_first begins a sum.
//
// model: simulator.stepped; rules W5 and W6.
module output_transform #(
    parameter integer FORMS    = 1,   // 1: F(2,3), 2: F(4,3), 3: both
    parameter integer LANES    = 1,
    parameter integer RESULT_W = 32,
    parameter integer SUM_W    = 32,  // at most RESULT_W
    parameter integer DEPTH    = 4,   // columns times groups of rows
    // derived
    parameter integer ADDR_W   = DEPTH > 1 ? $clog2(DEPTH) : 1
) (
    input wire clk,

    input wire cfg_form4,

    // results of the array
    input wire                      in_valid,
    input wire                      in_first,
    input wire [               2:0] in_tap_row,
    input wire [               2:0] in_tap_column,
    input wire [        ADDR_W-1:0] in_addr,
    input wire [LANES*RESULT_W-1:0] in_result,

    // outputs
    input  wire [               3:0] out_phase,
    output wire [LANES*RESULT_W-1:0] out_result
);
  localparam integer OUTPUTS = FORMS > 1 ? 16 : 4;
  localparam integer SIDE = FORMS > 1 ? 4 : 2;
  localparam integer TILE_W = OUTPUTS * SUM_W;
  localparam integer QUOTIENT_W = FORMS > 1 ? SUM_W - 6 : SUM_W;  // of F(4,3), where it is there

  wire form4 = FORMS == 2 || FORMS == 3 && cfg_form4;

  logic valid_q, first_q;
  logic [2:0] tap_row_q, tap_column_q;
  logic [ADDR_W-1:0] addr_q;
  logic [LANES*SUM_W-1:0] product_q;
  logic [LANES*TILE_W-1:0] sums_q;
  wire [LANES*TILE_W-1:0] old_sums, sums;

  always_ff @(posedge clk) begin
    valid_q      <= in_valid;
    first_q      <= in_first;
    tap_row_q    <= in_tap_row;
    tap_column_q <= in_tap_column;
    addr_q       <= in_addr;
    if (valid_q) sums_q <= sums;
  end

  bank_memory #(
      .WORDS (DEPTH),
      .LANES (1),
      .LANE_W(LANES * TILE_W)
  ) u_sums (
      .clk        (clk),
      .write      (valid_q),
      .write_lanes(1'b1),
      .write_addr (addr_q),
      .write_data (sums),
      .read       (in_valid),
      .read_addr  (in_addr),
      .word       (old_sums)
  );

  genvar lane, i, j;
  generate
    for (lane = 0; lane < LANES; lane = lane + 1) begin : g_lane
      always_ff @(posedge clk) product_q[lane*SUM_W+:SUM_W] <= in_result[lane*RESULT_W+:SUM_W];
      if (RESULT_W > SUM_W) begin : g_upper
        wire unused_upper = ^in_result[lane*RESULT_W+SUM_W+:RESULT_W-SUM_W];
      end

      wire [SIDE*SUM_W-1:0] columns;
      winograd_scale #(
          .FORMS(FORMS),
          .W    (SUM_W)
      ) u_columns (
          .form4(form4),
          .tap  (tap_column_q),
          .x    (product_q[lane*SUM_W+:SUM_W]),
          .z    (columns)
      );

      for (j = 0; j < SIDE; j = j + 1) begin : g_column
        wire [SIDE*SUM_W-1:0] rows;
        winograd_scale #(
            .FORMS(FORMS),
            .W    (SUM_W)
        ) u_rows (
            .form4(form4),
            .tap  (tap_row_q),
            .x    (columns[j*SUM_W+:SUM_W]),
            .z    (rows)
        );
        for (i = 0; i < SIDE; i = i + 1) begin : g_row
          localparam integer PLACE = (lane * OUTPUTS + i * SIDE + j) * SUM_W;
          assign sums[PLACE+:SUM_W] = (first_q ? '0 : old_sums[PLACE+:SUM_W]) +
              rows[i*SUM_W+:SUM_W];
        end
      end

      // Division of the output that is next
      logic [SUM_W-1:0] sum;
      logic [SUM_W-1:0] quotient;  // modulo 2^(SUM_W - 2), or 2^(SUM_W - 6)
      logic [RESULT_W-1:0] out_q;
      wire [3:0] place = form4 || SIDE == 2 ? out_phase : {1'b0, out_phase[1], 1'b0, out_phase[0]};

      always_comb begin
        sum = '0;
        for (int x = 0; x < OUTPUTS; x = x + 1) begin
          if (place == 4'(x)) sum = sums_q[(lane*OUTPUTS+x)*SUM_W+:SUM_W];
        end
        quotient = sum >> 6;
        quotient = quotient - (quotient << 3);
        // 1 / (1 + 8) = (1 - 8) (1 + 8^2) (1 + 8^4) .. modulo a power of two
        for (int e = 1; e < 5; e = e + 1) quotient = quotient + (quotient << (3 << e));
      end

      always_ff @(posedge clk) begin
        out_q <= form4 ? RESULT_W'($signed(quotient[QUOTIENT_W-1:0])) : RESULT_W'($signed(sum[SUM_W-1:2]));
      end

      assign out_result[lane*RESULT_W+:RESULT_W] = out_q;
    end
  endgenerate
endmodule

`default_nettype wire
