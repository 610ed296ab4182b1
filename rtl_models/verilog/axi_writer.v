`default_nettype none

// Sends beats as the data of the bursts that were offered, and takes the responses.
//
// `burst` announces a burst (its beats less one) when its address is first offered, and from the
// next cycle on its beats go out as they come, whether or not the address has been taken: a
// subordinate may wait for either. At most 8 bursts may be announced and not sent. Responses are always taken.
// Reset: nothing announced.
//
//   beat_taken   the beat was taken in this cycle
//   burst_end    the response of a burst came in this cycle; `failed` if it tells of an error
module axi_writer #(
    parameter integer DATA_W = 64
) (
    input wire clk,
    input wire rst,

    // bursts
    input wire       burst,
    input wire [7:0] burst_beats_less_1,

    // beats
    input  wire                beat_valid,
    output wire                beat_taken,
    input  wire [  DATA_W-1:0] beat,
    input  wire [DATA_W/8-1:0] beat_strobes,

    // responses
    output wire burst_end,
    output wire failed,

    // AXI4 write data and response
    output wire [  DATA_W-1:0] m_axi_wdata,
    output wire [DATA_W/8-1:0] m_axi_wstrb,
    output wire                m_axi_wlast,
    output wire                m_axi_wvalid,
    input  wire                m_axi_wready,
    input  wire [         1:0] m_axi_bresp,
    input  wire                m_axi_bvalid,
    output wire                m_axi_bready
);
  // Announced bursts, a ring of 8; the difference of the counters is what it holds
  logic [7:0] length[0:7];
  logic [3:0] announced_q, sent_q;
  logic [7:0] beats_q;  // of the burst at hand that were sent
  wire last = beats_q == length[sent_q[2:0]];
  wire unused_bresp = m_axi_bresp[0];  // OKAY and EXOKAY, SLVERR and DECERR are alike

  assign m_axi_wdata  = beat;
  assign m_axi_wstrb  = beat_strobes;
  assign m_axi_wlast  = last;
  assign m_axi_wvalid = beat_valid && announced_q != sent_q;
  assign m_axi_bready = 1'b1;
  assign beat_taken   = m_axi_wvalid && m_axi_wready;
  assign burst_end    = m_axi_bvalid;
  assign failed       = m_axi_bvalid && m_axi_bresp[1];

  always_ff @(posedge clk) begin
    if (rst) begin
      announced_q <= '0;
      sent_q      <= '0;
      beats_q     <= '0;
    end else begin
      if (burst) announced_q <= announced_q + 1'b1;
      if (beat_taken) begin
        beats_q <= last ? '0 : beats_q + 1'b1;
        if (last) sent_q <= sent_q + 1'b1;
      end
    end
    if (burst) length[announced_q[2:0]] <= burst_beats_less_1;
  end
endmodule

`default_nettype wire
