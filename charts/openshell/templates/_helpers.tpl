{{/* The one gateway of a release. The operator's permissions name what belongs to it. */}}
{{- define "openshell.gateway" -}}default{{- end }}

{{- define "openshell.sandboxNamespace" -}}
{{ .Values.server.sandboxNamespace | default .Release.Namespace }}
{{- end }}

{{- define "openshell.clientSecret" -}}
{{ .Values.server.tls.clientTlsSecretName | default (printf "%s-gateway-client-tls" (include "openshell.gateway" .)) }}
{{- end }}

{{/* Name of an object without a namespace: releases in several namespaces must not share it. */}}
{{- define "openshell.clusterName" -}}
openshell:{{ index . 0 }}:{{ index . 1 }}
{{- end }}

{{- define "openshell.labels" -}}
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
app.kubernetes.io/part-of: openshell
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
helm.sh/chart: {{ .Chart.Name }}-{{ .Chart.Version }}
{{- end }}

{{- define "openshell.operatorSelector" -}}
app.kubernetes.io/name: openshell-operator
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{- define "openshell.image" -}}
{{- $image := index . 0 -}}
{{- $root := index . 1 -}}
{{- if contains "@" $image.repository -}}
{{ $image.repository }}
{{- else -}}
{{ $image.repository }}:{{ $image.tag | default $root.Chart.AppVersion }}
{{- end -}}
{{- end }}

{{/* Labels and annotations of a pod that is confined as Pod Security `restricted` wants it. */}}
{{- define "openshell.podSecurityContext" -}}
runAsNonRoot: true
runAsUser: 65532
runAsGroup: 65532
fsGroup: 65532
seccompProfile: {type: RuntimeDefault}
{{- end }}

{{- define "openshell.securityContext" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities: {drop: [ALL]}
{{- end }}
