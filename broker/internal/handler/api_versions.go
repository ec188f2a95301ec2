package handler

import (
	"context"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/leatlog/leat/broker/internal/metadata"
	"github.com/leatlog/leat/broker/internal/wire"
)

// ApiVersions (key 18), versions 0 to 4: KIP-35; KIP-511 (what software the client
// is, and the answer in version 0 to a version that is not known), KIP-584
// (features).

func apiVersions(h *Handler, _ context.Context, request *wire.Request, respond wire.Responder) {
	body := request.Body.(*kmsg.ApiVersionsRequest)
	response := body.ResponseKind().(*kmsg.ApiVersionsResponse)
	switch {
	case request.Unsupported:
		// The client learns from the one row which version to ask with.
		response.ErrorCode = kerr.UnsupportedVersion.Code
		if row, ok := h.table.Lookup(wire.APIVersionsKey); ok {
			response.ApiKeys = append(response.ApiKeys, versionRange(row))
		}
	case body.Version >= 3 && (!softwareText(body.ClientSoftwareName) || !softwareText(body.ClientSoftwareVersion)):
		response.ErrorCode = kerr.InvalidRequest.Code
	default:
		request.Conn.SetSoftware(wire.Software{Name: body.ClientSoftwareName, Version: body.ClientSoftwareVersion})
		rows := h.table.Rows()
		for i := range rows {
			response.ApiKeys = append(response.ApiKeys, versionRange(&rows[i]))
		}
		h.addFeatures(response)
	}
	respond(wire.Response{Body: response})
}

func versionRange(row *wire.API) kmsg.ApiVersionsResponseApiKey {
	k := kmsg.NewApiVersionsResponseApiKey()
	k.ApiKey, k.MinVersion, k.MaxVersion = row.Key, row.MinAdvertised(), row.Max
	return k
}

// addFeatures adds the features this program supports and those the cluster has
// finalised.
func (h *Handler) addFeatures(response *kmsg.ApiVersionsResponse) {
	image := h.Image()
	response.FinalizedFeaturesEpoch = image.Offset()
	for _, f := range metadata.SupportedFeatures() {
		supported := kmsg.NewApiVersionsResponseSupportedFeature()
		supported.Name, supported.MinVersion, supported.MaxVersion = f.Name, f.Min, f.Max
		if response.Version < 4 && f.Min == 0 {
			// Older clients cannot read a lowest level of 0 (KIP-1022).
			supported.MinVersion = 1
		}
		response.SupportedFeatures = append(response.SupportedFeatures, supported)
	}
	for _, name := range image.FeatureNames() {
		level := image.Features()[name]
		finalized := kmsg.NewApiVersionsResponseFinalizedFeature()
		finalized.Name, finalized.MinVersionLevel, finalized.MaxVersionLevel = name, level, level
		response.FinalizedFeatures = append(response.FinalizedFeatures, finalized)
	}
}

// softwareText says that a client's software name or version is well-formed:
// letters, digits, '.' and '-', beginning and ending with a letter or digit.
func softwareText(s string) bool {
	if s == "" {
		return false
	}
	for i := range len(s) {
		c := s[i]
		plain := c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9'
		if !plain && (i == 0 || i == len(s)-1 || c != '.' && c != '-') {
			return false
		}
	}
	return true
}
