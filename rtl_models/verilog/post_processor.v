`default_nettype none

// Turns the results that the drain reads into codes and writes them (rules D3, V3).
//
// A group of LANES results read in cycle u is written in cycle u+4: in u+1 its parameters come from
// their memory and the requantizer takes it. With cfg_mode 3 (add) the operands are rescaled first,
// and everything from the parameters on is 4 cycles later. One group a cycle, nothing stalls.
// Reset and `flush` empty the pipeline.
//
//   port         meaning
//   in_read      a group is read; in_result its results, in_exists which of its rows hold a pixel
//   in_end       it is the last group of the run
//   in_group, in_lane, in_addr, in_param
//                group of rows, lane and word of the output memory, address of the parameters
//   param_word   parameter memory's output: {bias[POST_W], multiplier[32], shift[8]} (rule M5)
//   out_write    bit r*FEED+f: bank r writes lane f at out_addr
//   out_data     bank r writes code r mod LANES, at [(r mod LANES)*CODE_W]
//   finished     the last write of the run is in this cycle
//
// golden: golden.operators.post_process.
module post_processor #(
    parameter integer ROWS         = 4,
    parameter integer FEED         = 1,
    parameter integer LANES        = 1,
    parameter integer CODE_W       = 8,
    parameter integer RESULT_W     = 32,  // POST_W where VECTOR is 1
    parameter integer POST_W       = 32,
    parameter integer VECTOR       = 0,
    parameter integer PARAM_ADDR_W = 10,
    parameter integer OUT_ADDR_W   = 10,
    localparam integer GROUPS  = ROWS / LANES,
    localparam integer GROUP_W = GROUPS > 1 ? $clog2(GROUPS) : 1,
    localparam integer LANE_W  = FEED > 1 ? $clog2(FEED) : 1
) (
    input wire clk,
    input wire rst,
    input wire flush,

    // configuration, see layer_engine
    input wire        [       2:0] cfg_mode,
    input wire        [       2:0] cfg_rounding,
    input wire signed [  CODE_W:0] cfg_output_zero_point,
    input wire signed [  CODE_W:0] cfg_minimum,
    input wire signed [  CODE_W:0] cfg_maximum,
    input wire signed [CODE_W+1:0] cfg_second_offset,
    input wire        [       4:0] cfg_left_shift,
    input wire signed [      31:0] cfg_first_multiplier,
    input wire signed [       7:0] cfg_first_shift,
    input wire signed [      31:0] cfg_second_multiplier,
    input wire signed [       7:0] cfg_second_shift,

    // results
    input wire                      in_read,
    input wire                      in_end,
    input wire [         LANES-1:0] in_exists,
    input wire [       GROUP_W-1:0] in_group,
    input wire [        LANE_W-1:0] in_lane,
    input wire [    OUT_ADDR_W-1:0] in_addr,
    input wire [  PARAM_ADDR_W-1:0] in_param,
    input wire [LANES*RESULT_W-1:0] in_result,

    // parameter memory
    output wire                    param_read,
    output wire [PARAM_ADDR_W-1:0] param_addr,
    input  wire [   POST_W+40-1:0] param_word,

    // output memory
    output wire [   ROWS*FEED-1:0] out_write,
    output wire [  OUT_ADDR_W-1:0] out_addr,
    output wire [LANES*CODE_W-1:0] out_data,
    output wire                    finished
);
  localparam integer PLACE_W = 1 + LANES + GROUP_W + LANE_W + OUT_ADDR_W;
  localparam integer TICKET_W = 1 + PARAM_ADDR_W + PLACE_W;
  localparam integer PAIR_CYCLES = 4;  // K of rule V3
  localparam [2:0] ADD = 3'd3;

  // Where a group's parameters are and where its codes go, at the time its accumulators need it
  wire [TICKET_W-1:0] ticket_now = {
    in_read, in_param, in_end, in_exists, in_group, in_lane, in_addr
  };
  wire [TICKET_W-1:0] ticket;
  wire read;
  wire [PLACE_W-1:0] place;
  assign {read, param_addr, place} = ticket;
  assign param_read = read;

  logic accs_valid_q;
  logic [LANES*RESULT_W-1:0] accs_q;
  wire [LANES*RESULT_W-1:0] accs;
  logic [PLACE_W-1:0] place_q, place_q2, place_q3, place_q4;

  always_ff @(posedge clk) begin
    if (rst || flush) accs_valid_q <= 1'b0;
    else accs_valid_q <= read;
    accs_q   <= in_result;
    place_q  <= place;
    place_q2 <= place_q;
    place_q3 <= place_q2;
    place_q4 <= place_q3;
  end

  generate
    if (VECTOR != 0) begin : g_vector
      wire [TICKET_W-1:0] ticket_late;

      delay_line #(
          .WIDTH (TICKET_W),
          .STAGES(PAIR_CYCLES)
      ) u_delay (
          .clk(clk),
          .rst(rst || flush),
          .in (ticket_now),
          .out(ticket_late)
      );
      assign ticket = cfg_mode == ADD ? ticket_late : ticket_now;

      pair_operator #(
          .LANES (LANES),
          .CODE_W(CODE_W),
          .POST_W(POST_W)
      ) u_pairs (
          .clk                  (clk),
          .cfg_mode             (cfg_mode),
          .cfg_rounding         (cfg_rounding),
          .cfg_second_offset    (cfg_second_offset),
          .cfg_left_shift       (cfg_left_shift),
          .cfg_first_multiplier (cfg_first_multiplier),
          .cfg_first_shift      (cfg_first_shift),
          .cfg_second_multiplier(cfg_second_multiplier),
          .cfg_second_shift     (cfg_second_shift),
          .in_value             (accs_q),
          .out_acc              (accs)
      );
    end else begin : g_array_only
      wire unused = ^{cfg_mode, cfg_second_offset, cfg_left_shift, cfg_first_multiplier,
                      cfg_first_shift, cfg_second_multiplier, cfg_second_shift};
      assign ticket = ticket_now;
      assign accs   = accs_q;
    end
  endgenerate

  wire signed [POST_W-1:0] bias;
  wire signed [31:0] multiplier;
  wire signed [7:0] shift;
  assign {bias, multiplier, shift} = param_word;

  wire unused_ready;  // nothing stalls the pipeline
  wire codes_valid;

  requantizer #(
      .LANES (LANES),
      .ACC_W (RESULT_W),
      .POST_W(POST_W),
      .OUT_W (CODE_W)
  ) u_requantizer (
      .clk           (clk),
      .rst           (rst || flush),
      .cfg_rounding  (cfg_rounding),
      .cfg_zero_point(cfg_output_zero_point),
      .cfg_minimum   (cfg_minimum),
      .cfg_maximum   (cfg_maximum),
      .in_valid      (accs_valid_q),
      .in_ready      (unused_ready),
      .in_acc        (accs),
      .in_bias       (bias),
      .in_multiplier (multiplier),
      .in_shift      (shift),
      .out_valid     (codes_valid),
      .out_ready     (1'b1),
      .out_code      (out_data)
  );

  wire write_end;
  wire [LANES-1:0] write_rows;
  wire [GROUP_W-1:0] write_group;
  wire [LANE_W-1:0] write_lane;
  assign {write_end, write_rows, write_group, write_lane, out_addr} = place_q4;
  assign finished = codes_valid && write_end;

  genvar row, f;
  generate
    for (row = 0; row < ROWS; row = row + 1) begin : g_row
      for (f = 0; f < FEED; f = f + 1) begin : g_lane
        assign out_write[row*FEED+f] = codes_valid && write_rows[row%LANES] &&
            write_group == GROUP_W'(row / LANES) && write_lane == LANE_W'(f);
      end
    end
  endgenerate
endmodule

`default_nettype wire
