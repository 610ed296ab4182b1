`default_nettype none

// Takes a weight block apart: feed words, parameters, a stream for each column, a beat a cycle.
//
// A section ends with the beat whose highest bit is set. Beats of feed words and entries are
// written as they are, from beat cfg_load_feed and, in every stream memory, from beat
// cfg_load_streams upwards. A parameter takes PARAM_BEATS = ceil(PARAM_W / (DATA_W-1)) beats, low bits first, and is
// written with its last one, from word cfg_load_parameters upwards. Latency 0: a beat is written in
// the cycle in which it is given. `start` begins a block; there is no other reset.
//
//   bounds_error  this beat would be written beyond its memory; it is not written
//   block_error   this beat ends a section inside a parameter, or follows the last section, or is
//                 the last of the block (`block_end`) and not of the last section
module weight_unpacker #(
    parameter integer COLS          = 4,
    parameter integer DATA_W        = 64,
    parameter integer PARAM_W       = 72,
    parameter integer FEED_BEATS    = 64,
    parameter integer STREAM_BEATS  = 64,
    parameter integer PARAM_WORDS   = 64,
    // derived
    parameter integer FEED_BEAT_W   = FEED_BEATS > 1 ? $clog2(FEED_BEATS) : 1,
    parameter integer STREAM_BEAT_W = STREAM_BEATS > 1 ? $clog2(STREAM_BEATS) : 1,
    parameter integer PARAM_ADDR_W  = PARAM_WORDS > 1 ? $clog2(PARAM_WORDS) : 1
) (
    input wire clk,

    // configuration
    input wire [31:0] cfg_load_feed,
    input wire [31:0] cfg_load_parameters,
    input wire [31:0] cfg_load_streams,
    input wire        cfg_vector,

    // beats
    input wire              start,
    input wire              beat_valid,
    input wire [DATA_W-1:0] beat,
    input wire              block_end,

    // memories
    output wire                     feed_write,
    output wire [  FEED_BEAT_W-1:0] feed_write_beat,
    output wire [         COLS-1:0] stream_write,
    output wire [STREAM_BEAT_W-1:0] stream_write_beat,
    output wire                     param_write,
    output wire [ PARAM_ADDR_W-1:0] param_write_addr,
    output wire [      PARAM_W-1:0] param_write_data,

    // errors
    output wire bounds_error,
    output wire block_error
);
  localparam integer PAYLOAD_W = DATA_W - 1;
  localparam integer PARAM_BEATS = (PARAM_W + PAYLOAD_W - 1) / PAYLOAD_W;

  // Section: feed words, parameters, streams; none after the last one
  logic in_feed_q, in_params_q;
  logic [COLS-1:0] in_stream_q;  // one bit: the column
  logic [31:0] index_q;          // beat or word in the section's memory
  wire section_end = beat[DATA_W-1];
  wire in_streams = in_stream_q != '0;
  wire word_end;  // the beat completes a parameter
  wire moves = in_params_q ? word_end : 1'b1;
  wire last_section = in_params_q && cfg_vector || in_stream_q[COLS-1];

  always_ff @(posedge clk) begin
    if (start) begin
      in_feed_q   <= 1'b1;
      in_params_q <= 1'b0;
      in_stream_q <= '0;
      index_q     <= cfg_load_feed;
    end else if (beat_valid) begin
      if (section_end) begin
        in_feed_q   <= 1'b0;
        in_params_q <= in_feed_q;
        in_stream_q <= in_params_q ? COLS'(!cfg_vector) : in_stream_q << 1;
        index_q     <= in_feed_q ? cfg_load_parameters : cfg_load_streams;
      end else if (moves) begin
        index_q <= index_q + 1'b1;
      end
    end
  end

  // Writes
  wire fits = in_feed_q   ? index_q < FEED_BEATS :
              in_params_q ? index_q < PARAM_WORDS : index_q < STREAM_BEATS;
  wire write = beat_valid && fits;

  assign feed_write        = write && in_feed_q;
  assign feed_write_beat   = FEED_BEAT_W'(index_q);
  assign stream_write      = write ? in_stream_q : '0;
  assign stream_write_beat = STREAM_BEAT_W'(index_q);
  assign param_write       = write && in_params_q && word_end;
  assign param_write_addr  = PARAM_ADDR_W'(index_q);

  // Parameters
  generate
    if (PARAM_BEATS > 1) begin : g_parts
      localparam integer PART_W = $clog2(PARAM_BEATS);
      localparam integer LOW_W = (PARAM_BEATS - 1) * PAYLOAD_W;
      logic [PART_W-1:0] part_q;
      logic [LOW_W-1:0] low_q;  // the beats before, the last of them highest
      wire [LOW_W+PAYLOAD_W-1:0] joined = {beat[PAYLOAD_W-1:0], low_q};

      assign word_end = part_q == PART_W'(PARAM_BEATS - 1);
      assign param_write_data = PARAM_W'(joined);

      always_ff @(posedge clk) begin
        if (start) part_q <= '0;
        else if (beat_valid && in_params_q) part_q <= word_end ? '0 : part_q + 1'b1;
        if (beat_valid) low_q <= LOW_W'(joined >> PAYLOAD_W);
      end
    end else begin : g_whole
      assign word_end = 1'b1;
      assign param_write_data = PARAM_W'(beat[PAYLOAD_W-1:0]);
    end
  endgenerate

  // Errors
  wire in_section = in_feed_q || in_params_q || in_streams;
  wire ends_well = last_section && section_end;
  assign bounds_error = beat_valid && in_section && !fits;
  assign block_error  = beat_valid && (!in_section || section_end && !moves ||
                                       block_end && !ends_well);
endmodule

`default_nettype wire
